"""From a batch of crops to joints in the pictures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.dataset.heatmap import decode, flip_heatmaps
from lib.dataset.transforms import crop_matrix, transform_points

# From crops uint8 [B, h, w, 3] to heatmaps [B, J, h', w'], fp32, see `lib.core.runtime`.
Runner = Callable[[Tensor], Tensor]

# Of ImageNet, in the range 0 to 255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Predictions:
    """Joints that were found: `joints` [N, J, 2] in 0-based image pixels, `scores` [N, J]."""

    joints: np.ndarray
    scores: np.ndarray


def normalise(images: Tensor) -> Tensor:
    """Pixels uint8 [B, h, w, 3] -> float [B, 3, h, w] of ImageNet's mean 0 and deviation 1."""
    mean = torch.tensor(MEAN, device=images.device)
    gain = 1 / torch.tensor(STD, device=images.device)
    # Channels stay last in memory, as the crops have them and convolutions like them.
    return torch.addcmul(-mean * gain, images.float(), gain).permute(0, 3, 1, 2)


def estimate(run: Runner, images: Tensor, flip_order: Sequence[int] | None = None) -> Tensor:
    """Crops uint8 [B, h, w, 3] -> heatmaps [B, J, h, w], fp32.

    With `flip_order` (see `Skeleton`) the mean of the heatmaps of the picture and of its mirror
    picture, both in one batch.
    """
    if flip_order is None:
        return run(images)
    both = torch.cat((images, images.flip(2)))
    plain, mirrored = run(both).chunk(2)
    return (plain + flip_heatmaps(mirrored, flip_order)) / 2


def to_image(joints: np.ndarray, center: np.ndarray, scale: np.ndarray, size: tuple) -> np.ndarray:
    """Joints [B, J, 2] in heatmap cells of `size` (w, h) -> 0-based image pixels, fp64.

    `center` and `scale` [B, 2] are those of the crops.
    """
    back = [crop_matrix(c, s, 0.0, size, inverse=True) for c, s in zip(center, scale, strict=True)]
    return np.stack([transform_points(j, m) for j, m in zip(joints, back, strict=True)])


@torch.inference_mode()
def predict(
    run: Runner,
    batches: Iterable[dict[str, Tensor]],
    device: torch.device,
    *,
    flip_order: Sequence[int] | None,
    refine: bool,
    blur_kernel: int,
) -> Predictions:
    """Find the joints of every person that the loader brings, in its order."""
    joints, scores = [], []
    for batch in batches:
        images = batch["image"].to(device, non_blocking=True)
        heatmaps = estimate(run, images, flip_order)
        found, score = decode(heatmaps, blur_kernel=blur_kernel, refine=refine)
        size = (heatmaps.shape[3], heatmaps.shape[2])
        center, scale = batch["center"].numpy(), batch["scale"].numpy()
        joints.append(to_image(found.double().cpu().numpy(), center, scale, size))
        scores.append(score.cpu().numpy())
    return concatenate(Predictions(*part) for part in zip(joints, scores, strict=True))


def concatenate(parts: Iterable[Predictions]) -> Predictions:
    """All people of some parts, in order; parts, and the whole, may be empty."""
    parts = [part for part in parts if len(part.joints)]
    if not parts:
        return Predictions(np.zeros((0, 0, 2)), np.zeros((0, 0)))
    return Predictions(
        np.concatenate([part.joints for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
