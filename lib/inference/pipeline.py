"""The chain from pixels to joints, which training, testing, prediction and export share.

crops uint8 -> `normalise` -> network -> heatmaps -> `decode` -> joints in the crop -> `to_image`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lib.dataset.heatmap import decode, flip_heatmaps
from lib.dataset.predictions import Predictions, concatenate
from lib.dataset.transforms import crop_matrix, rescale_joints, transform_points
from lib.models import PoseNetwork

# Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h', w'], fp32; see `lib.inference.runtimes`.
Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Decoding:
    """How heatmaps become joints; `refine` and `blur_kernel` as of `lib.dataset.heatmap.decode`.

    `flip_order` (see `Skeleton`) asks for the flip test; None: without.
    """

    flip_order: Sequence[int] | None = None
    refine: bool = True
    blur_kernel: int = 11


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Crops uint8 [B, h, w, 3] -> float [B, 3, h, w], of that mean and deviation in 0 to 1."""
    gain = 1 / torch.tensor([255 * value for value in std], device=images.device)
    offset = -torch.tensor([255 * value for value in mean], device=images.device) * gain
    # Channels stay last in memory, as the crops have them and convolutions prefer.
    return torch.addcmul(offset, images.float(), gain).permute(0, 3, 1, 2)


class PixelsToHeatmaps(nn.Module):
    """A network together with its normalisation: crops uint8 [B, h, w, 3] -> heatmaps, fp32."""

    def __init__(self, network: PoseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h', w'], fp32."""
        return self.network(normalise(images, self.network.mean, self.network.std)).float()


class PixelsToJoints(nn.Module):
    """Crops uint8 [B, h, w, 3] -> heatmaps, joints [B, J, 2] in crop pixels, and scores [B, J]."""

    def __init__(self, network: PoseNetwork, size: tuple[int, int], decoding: Decoding) -> None:
        """`size` (w, h) of the crops; the flip test is left out."""
        super().__init__()
        self.heatmaps = PixelsToHeatmaps(network)
        self.size = size
        self.decoding = decoding

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return heatmaps, joints and scores."""
        heatmaps = self.heatmaps(images)
        return heatmaps, *self.decode(heatmaps)

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps -> joints and scores."""
        cells, scores = decode(heatmaps, self.decoding.blur_kernel, self.decoding.refine)
        return rescale_joints(cells, heatmaps.shape[:1:-1], self.size), scores


def predict_heatmaps(run: Runner, images: Tensor, flip_order: Sequence[int] | None) -> Tensor:
    """Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h, w], fp32.

    With `flip_order` the mean of the heatmaps of the crops and of their mirror images, both in one
    batch.
    """
    if flip_order is None:
        return run(images)
    plain, mirrored = run(torch.cat((images, images.flip(2)))).chunk(2)
    return (plain + flip_heatmaps(mirrored, flip_order)) / 2


def to_image(
    joints: np.ndarray, center: np.ndarray, scale: np.ndarray, size: Sequence[int]
) -> np.ndarray:
    """Joints [B, J, 2] in heatmap cells of `size` (w, h) -> 0-based image pixels, float64.

    `center` and `scale` [B, 2] are those of the crops.
    """
    inverse = [
        crop_matrix(c, s, 0.0, size, inverse=True) for c, s in zip(center, scale, strict=True)
    ]
    return np.stack([transform_points(j, m) for j, m in zip(joints, inverse, strict=True)])


@torch.inference_mode()
def predict(
    run: Runner, batches: Iterable[dict[str, Tensor]], device: torch.device, decoding: Decoding
) -> Predictions:
    """Find the joints of every person that the loader yields, in its order."""
    found = []
    for batch in batches:
        images = batch["image"].to(device, non_blocking=True)
        heatmaps = predict_heatmaps(run, images, decoding.flip_order)
        cells, scores = decode(heatmaps, decoding.blur_kernel, decoding.refine)
        size = (heatmaps.shape[3], heatmaps.shape[2])
        center, scale = batch["center"].numpy(), batch["scale"].numpy()
        joints = to_image(cells.double().cpu().numpy(), center, scale, size)
        found.append(Predictions(joints, scores.cpu().numpy()))
    return concatenate(found)
