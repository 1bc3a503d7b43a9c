"""The accuracy of heatmaps that training logs."""

import torch
from torch import Tensor

from lib.dataset.heatmap import decode


def heatmap_accuracy(
    output: Tensor, target: Tensor, threshold: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Share of joints whose highest cell is near the target's (HRNet's training accuracy).

    output and target [B,J,h,w]. Near is less than `threshold` tenths of the map's width in x and
    height in y; joints whose target peaks in the first two rows or columns, or nowhere, do not
    count. Returns the share of each joint [J] (0 … 1, nan if none counts), their mean (0 if none
    counts) and the number of joints that count, as tensors, without synchronising the device.
    """
    height, width = target.shape[-2:]
    truth, _ = decode(target, refine=False)
    predicted, _ = decode(output, refine=False)
    counted = (truth > 1).all(dim=-1)
    x, y = (predicted - truth).unbind(-1)
    hits = counted & (torch.hypot(x * 10 / width, y * 10 / height) < threshold)
    accuracy = hits.sum(dim=0) / counted.sum(dim=0)
    joints = counted.any(dim=0).sum()
    return accuracy, accuracy.nansum() / joints.clamp(min=1), joints
