"""The pipeline from pixels to joints, which training, testing, prediction and export share.

crops uint8 -> `normalise` -> network -> heatmaps -> `decode` -> joints in the crop -> `to_image`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.dataset import Skeleton
from lib.dataset.heatmap import decode, flip_heatmaps
from lib.dataset.predictions import Predictions, concatenate
from lib.dataset.transforms import crop_matrix, rescale_joints, transform_points
from lib.models import PoseNetwork
from lib.utils.kernels import is_exporting

# Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h', w'], fp32; see `lib.inference.runtimes`.
Runner = Callable[[Tensor], Tensor]
Observer = Callable[[Tensor, dict[str, Tensor]], None]  # of heatmaps [B, J, h', w'], and batch


@dataclass(frozen=True)
class Decoding:
    """How heatmaps become joints; `refine` and `blur_kernel` as of `lib.dataset.heatmap.decode`.

    With `flip_order` (see `Skeleton`) the flip test is used, with None it is not; `shift` as of
    `flip_heatmaps`, `unbiased` as of `crop_matrix`.
    """

    flip_order: Sequence[int] | None = None
    refine: bool | Literal["quarter"] = True
    blur_kernel: int = 11
    shift: bool = False
    unbiased: bool = True


def build_decoding(cfg: CfgNode, skeleton: Skeleton) -> Decoding:
    """Return the decoding that the TEST keys choose."""
    test, unbiased = cfg.TEST, cfg.DATASET.UNBIASED
    return Decoding(
        flip_order=skeleton.flip_order if test.FLIP_TEST else None,
        refine=test.POST_PROCESS and (test.REFINEMENT == "dark" or "quarter"),
        blur_kernel=test.BLUR_KERNEL,
        shift=test.SHIFT_HEATMAP and not unbiased,
        unbiased=unbiased,
    )


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Crops uint8 [B, h, w, 3] -> float [B, 3, h, w]; `mean`, `std` of channels from 0 to 1."""
    gain = 1 / torch.tensor([255 * value for value in std], device=images.device)
    offset = -torch.tensor([255 * value for value in mean], device=images.device) * gain
    # Channels stay last in memory, as in the crops; convolutions are faster on them.
    if is_exporting():  # torch 2.6 cannot convert `addcmul` to ONNX
        return (images.float() * gain + offset).permute(0, 3, 1, 2)
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
        decoding, size = self.decoding, heatmaps.shape[:1:-1]
        cells, scores = decode(heatmaps, decoding.blur_kernel, decoding.refine)
        return rescale_joints(cells, size, self.size, decoding.unbiased), scores


def predict_heatmaps(
    run: Runner, images: Tensor, flip_order: Sequence[int] | None, shift: bool = False
) -> Tensor:
    """Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h, w], fp32.

    With `flip_order` they are averaged with those of the mirror images, run in the same batch;
    `shift` as of `flip_heatmaps`.
    """
    if flip_order is None:
        return run(images)
    plain, mirrored = run(torch.cat((images, images.flip(2)))).chunk(2)
    return (plain + flip_heatmaps(mirrored, flip_order, shift)) / 2


def to_image(
    joints: np.ndarray, center: np.ndarray, scale: np.ndarray, size: Sequence[int],
    unbiased: bool = True,
) -> np.ndarray:  # fmt: skip
    """Joints [B, J, 2] in heatmap cells of `size` (w, h) -> 0-based image pixels, float64.

    `center` and `scale` [B, 2] are those of the crops; `unbiased` as of `crop_matrix`.
    """
    crops = zip(center, scale, strict=True)
    inverse = [crop_matrix(*crop, 0.0, size, True, unbiased) for crop in crops]
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
        heatmaps = predict_heatmaps(run, images, decoding.flip_order, decoding.shift)
        observe(heatmaps, batch)
        cells, scores = decode(heatmaps, decoding.blur_kernel, decoding.refine)
        size = (heatmaps.shape[3], heatmaps.shape[2])
        center, scale = batch["center"].numpy(), batch["scale"].numpy()
        in_cells = cells.double().cpu().numpy()
        joints = to_image(in_cells, center, scale, size, decoding.unbiased)
        predictions.append(Predictions(joints, scores.cpu().numpy()))
    return concatenate(predictions)
