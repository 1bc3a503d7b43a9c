"""Joints to heatmaps and back, a batch at a time, on the device the tensors are on."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lib.utils import machine


def encode(
    joints: Tensor, visible: Tensor, size: tuple[int, int], sigma: float
) -> tuple[Tensor, Tensor]:
    """Draw each joint as a Gaussian with peak 1 over its whole map.

    joints [B,J,2] (x, y) in heatmap cells, not rounded, floating; visible [B,J], 0 where a joint is
    not annotated (its coordinates may then be anything, NaN included); size (width, height);
    sigma in cells. Returns target [B,J,h,w] and weight [B,J], in the dtype of `joints`. The weight
    is `visible`, but 0 for a joint whose 3σ box misses the map; where it is 0 the map is zero.
    Source: DARK, Zhang et al. 2020 (full map, centre not rounded).
    """
    width, height = size
    x, y = joints.unbind(-1)
    weight = (visible * _touches(x, width, sigma) * _touches(y, height, sigma)).to(joints.dtype)
    rows = _gaussian(y, weight > 0, height, sigma)
    columns = _gaussian(x, weight > 0, width, sigma)
    return rows.unsqueeze(-1) * columns.unsqueeze(-2), weight


def decode(heatmaps: Tensor, blur_kernel: int = 11, refine: bool = True) -> tuple[Tensor, Tensor]:
    """Find each map's joint: its highest cell, moved between the cells by DARK.

    heatmaps [B,J,h,w], any floating dtype, computed in float32. Returns joints [B,J,2] (x, y) in
    heatmap cells and scores [B,J], the value of the highest cell, both float32. A map without a
    positive cell gives (0, 0). `blur_kernel` is odd, in cells; with `refine` false the highest cell
    is the joint. Source: DARK, Zhang et al. 2020; one Newton step on the log of the blurred map.
    """
    heatmaps = heatmaps.float()
    scores, cell = heatmaps.flatten(2).max(dim=-1)
    width = heatmaps.shape[-1]
    peak = torch.stack((cell % width, cell // width), dim=-1) * (scores > 0).unsqueeze(-1)
    if not refine:
        return peak.float(), scores
    return peak + _newton_step(heatmaps, peak, scores, blur_kernel), scores


def flip_heatmaps(heatmaps: Tensor, flip_order: Sequence[int]) -> Tensor:
    """Turn the heatmaps of a mirrored picture, [B,J,h,w], into those of the picture itself.

    `flip_order` [J] is `Skeleton.flip_order`. Crops map corner cells to corner cells, so the maps
    need no shift by a cell after mirroring.
    """
    return heatmaps[:, list(flip_order)].flip(-1)


def _touches(position: Tensor, length: int, sigma: float) -> Tensor:
    """Whether a joint's 3σ box touches cells 0 … length-1 of one axis; NaN does not."""
    reach = 3 * sigma
    return ((position - reach).trunc() < length) & ((position + reach + 1).trunc() >= 0)


def _gaussian(position: Tensor, drawn: Tensor, length: int, sigma: float) -> Tensor:
    """One axis of the Gaussians, [B,J,length]; zero where a joint is not drawn.

    The two-dimensional Gaussian is the product of its axes, so exp runs on h+w cells, not on h·w.
    """
    cells = torch.arange(length, dtype=position.dtype, device=position.device)
    values = torch.exp((cells - position.unsqueeze(-1)).square() / (-2 * sigma**2))
    return torch.where(drawn.unsqueeze(-1), values, 0)


def _newton_step(heatmaps: Tensor, peak: Tensor, scores: Tensor, blur_kernel: int) -> Tensor:
    """Way from the highest cell to the top of the log of the blurred map, [B,J,2] in cells.

    Zero at the border, where differences would leave the map, and where there is no such top.
    """
    height, width = heatmaps.shape[-2:]
    blurred = _blur(heatmaps, blur_kernel)
    rescale = scores / blurred.amax(dim=(-2, -1))
    around = _neighbourhood(blurred, peak) * rescale[..., None, None]
    f = around.clamp(min=1e-10).log()  # [B,J,5,5], the peak at [2,2]

    dx = (f[..., 2, 3] - f[..., 2, 1]) / 2
    dy = (f[..., 3, 2] - f[..., 1, 2]) / 2
    dxx = (f[..., 2, 4] - 2 * f[..., 2, 2] + f[..., 2, 0]) / 4
    dyy = (f[..., 4, 2] - 2 * f[..., 2, 2] + f[..., 0, 2]) / 4
    dxy = (f[..., 3, 3] - f[..., 1, 3] - f[..., 3, 1] + f[..., 1, 1]) / 4
    determinant = dxx * dyy - dxy * dxy
    step = torch.stack((dxy * dy - dyy * dx, dxy * dx - dxx * dy), dim=-1)
    step = step / determinant.unsqueeze(-1)

    x, y = peak.unbind(-1)
    inner = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    # A determinant of 0 and a blurred map without a positive cell both end as inf or NaN.
    usable = inner & step.isfinite().all(dim=-1)
    return torch.where(usable.unsqueeze(-1), step, 0)


def _blur(maps: Tensor, kernel: int) -> Tensor:
    """Gaussian blur of [B,J,h,w] with a zero border and OpenCV's σ for that kernel size.

    Sums of shifted maps: on CPU as fast as matrix products or faster, far faster than convolution,
    and full float32 under autocast and TF32 too. Other runtimes, which copy a map to add to it,
    are given the matrix products.
    """
    assert kernel % 2 == 1, f"blur kernel must be odd, not {kernel}"
    radius = kernel // 2
    sigma = 0.3 * (radius - 1) + 0.8
    weights = [math.exp(-(shift**2) / (2 * sigma**2)) for shift in range(radius + 1)]
    total = 2 * sum(weights) - weights[0]
    if machine.is_exporting():
        rows, columns = (_band(weights, length) / total for length in maps.shape[-2:])
        return rows @ maps @ columns
    for dim in (-2, -1):
        length = maps.shape[dim]
        blurred = maps * (weights[0] / total)
        for shift in range(1, min(radius + 1, length)):
            weight, kept = weights[shift] / total, length - shift
            blurred.narrow(dim, shift, kept).add_(maps.narrow(dim, 0, kept), alpha=weight)
            blurred.narrow(dim, 0, kept).add_(maps.narrow(dim, shift, kept), alpha=weight)
        maps = blurred
    return maps


def _band(weights: list[float], length: int) -> Tensor:
    """The matrix [length, length] that mixes neighbours: `weights[shift]` to both sides."""
    place = torch.arange(length)
    shift = (place[:, None] - place).abs().clamp(max=len(weights))
    return torch.tensor([*weights, 0.0])[shift]


def _neighbourhood(maps: Tensor, peak: Tensor) -> Tensor:
    """The 5×5 cells around each peak, [B,J,5,5]; beyond the border the nearest cell stands."""
    height, width = maps.shape[-2:]
    offsets = torch.arange(-2, 3, device=peak.device)
    x, y = (peak.unsqueeze(-1) + offsets).unbind(-2)
    cells = y.clamp(0, height - 1).unsqueeze(-1) * width + x.clamp(0, width - 1).unsqueeze(-2)
    return maps.flatten(2).gather(-1, cells.flatten(2)).unflatten(-1, (5, 5))
