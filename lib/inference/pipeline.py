"""The pipeline from pixels to joints, which training, testing, prediction and export share.

crops uint8 -> `normalise` -> network -> heatmaps -> `decode` -> joints in the crop -> `to_image`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.dataset import Skeleton
from lib.dataset.heatmap import decode, flip_heatmaps
from lib.dataset.predictions import Predictions, concatenate
from lib.dataset.transforms import crop_matrix, rescale_joints, transform_points
from lib.models import PoseNetwork

# Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h', w'], fp32; see `lib.inference.runtimes`.
Runner = Callable[[Tensor], Tensor]
Observer = Callable[[Tensor, dict[str, Tensor]], None]  # of heatmaps [B, J, h', w'], and batch


@dataclass(frozen=True)
class Decoding:
    """How heatmaps become joints; `refine` and `blur_kernel` as of `lib.dataset.heatmap.decode`.

    With `flip_order` (see `Skeleton`) the flip test is used, with None it is not.
    """

    flip_order: Sequence[int] | None = None
    refine: bool = True
    blur_kernel: int = 11


def build_decoding(cfg: CfgNode, skeleton: Skeleton) -> Decoding:
    """Return the decoding that the TEST keys choose."""
    return Decoding(
        flip_order=skeleton.flip_order if cfg.TEST.FLIP_TEST else None,
        refine=cfg.TEST.POST_PROCESS,
        blur_kernel=cfg.TEST.BLUR_KERNEL,
    )


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Crops uint8 [B, h, w, 3] -> float [B, 3, h, w]; `mean`, `std` of channels from 0 to 1."""
    gain = 1 / torch.tensor([255 * value for value in std], device=images.device)
    offset = -torch.tensor([255 * value for value in mean], device=images.device) * gain
    # Channels stay last in memory, as in the crops; convolutions are faster on them.
    return torch.addcmul(offset, images.float(), gain).permute(0, 3, 1, 2)


class PixelsToHeatmaps(nn.Module):
    """A network with its normalisation."""

    def __init__(self, network: PoseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h', w'], fp32."""
        return self.network(normalise(images, self.network.mean, self.network.std)).float()


class PixelsToJoints(nn.Module):
    """A network with its normalisation and decoding, without the flip test."""

    def __init__(self, network: PoseNetwork, size: tuple[int, int], decoding: Decoding) -> None:
        """`size` (w, h) is that of the crops."""
        super().__init__()
        self.heatmaps = PixelsToHeatmaps(network)
        self.size = size
        self.decoding = decoding

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Crops uint8 [B, h, w, 3] -> heatmaps, joints [B, J, 2] in crop pixels, scores [B, J]."""
        heatmaps = self.heatmaps(images)
        return heatmaps, *self.decode(heatmaps)

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps [B, J, h', w'] -> joints and scores."""
        cells, scores = decode(heatmaps, self.decoding.blur_kernel, self.decoding.refine)
        return rescale_joints(cells, heatmaps.shape[:1:-1], self.size), scores


def predict_heatmaps(run: Runner, images: Tensor, flip_order: Sequence[int] | None) -> Tensor:
    """Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h, w], fp32.

    With `flip_order` they are averaged with those of the mirror images, run in the same batch.
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
    run: Runner, batches: Iterable[dict[str, Tensor]], device: torch.device, decoding: Decoding,
    observe: Observer = lambda heatmaps, batch: None,
) -> Predictions:  # fmt: skip
    """Predict every person that the loader yields, in its order; `observe` sees each batch."""
    predictions = []
    for batch in batches:
        images = batch["image"].to(device, non_blocking=True)
        heatmaps = predict_heatmaps(run, images, decoding.flip_order)
        observe(heatmaps, batch)
        cells, scores = decode(heatmaps, decoding.blur_kernel, decoding.refine)
        size = (heatmaps.shape[3], heatmaps.shape[2])
        center, scale = batch["center"].numpy(), batch["scale"].numpy()
        joints = to_image(cells.double().cpu().numpy(), center, scale, size)
        predictions.append(Predictions(joints, scores.cpu().numpy()))
    return concatenate(predictions)
