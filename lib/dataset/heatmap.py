"""Joints to heatmaps and back, in batches, on the device of the tensors."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lib.utils.kernels import is_exporting


def encode(
    joints: Tensor, visible: Tensor, size: tuple[int, int], sigma: float
) -> tuple[Tensor, Tensor]:
    """Draw each joint as a Gaussian with peak 1 over its whole map.

    joints [B,J,2] (x, y) in heatmap cells, not rounded, floating; visible [B,J], 0 where a joint is
    not annotated (its coordinates may then be anything, NaN included); size (width, height); sigma
    in cells. Returns target [B,J,h,w] and weight [B,J], in the dtype of `joints`. The weight is
    `visible`, but 0 for a joint whose 3σ box misses the map; the map is zero if the weight is.
    Source: DARK, Zhang et al. 2020 (full map, center not rounded).
    """
    width, height = size
    x, y = joints.unbind(-1)
    weight = (visible * _is_near(x, width, sigma) * _is_near(y, height, sigma)).to(joints.dtype)
    rows = _gaussian(y, weight > 0, height, sigma)
    columns = _gaussian(x, weight > 0, width, sigma)
    return rows.unsqueeze(-1) * columns.unsqueeze(-2), weight


def decode(
    heatmaps: Tensor, blur_kernel: int = 11, refine: bool | Literal["quarter"] = True
) -> tuple[Tensor, Tensor]:
    """Return the joint of each map: its highest cell, refined to subcell accuracy by DARK.

    heatmaps [B,J,h,w], any floating dtype, computed in float32. Returns joints [B,J,2] (x, y) in
    heatmap cells and scores [B,J], the value of the highest cell, both float32. A map without a
    positive cell gives (0, 0). `blur_kernel` is odd, in cells; `refine` false returns the highest
    cell, "quarter" moves it by a quarter of a cell towards the higher neighbours, as HRNet does.
    Source: DARK, Zhang et al. 2020; one Newton step on the log of the blurred map.
    """
    heatmaps = heatmaps.float()
    scores, cell = heatmaps.flatten(2).max(dim=-1)
    width = heatmaps.shape[-1]
    row = cell // width
    # OpenVINO 2025 cannot convert `cell % width`.
    peak = torch.stack((cell - row * width, row), dim=-1) * (scores > 0).unsqueeze(-1)
    if not refine:
        return peak.float(), scores
    if refine == "quarter":
        return peak + _quarter_step(heatmaps, peak), scores
    return peak + _newton_step(heatmaps, peak, scores, blur_kernel), scores


def flip_heatmaps(heatmaps: Tensor, flip_order: Sequence[int], shift: bool = False) -> Tensor:
    """Convert the heatmaps of mirrored images, [B,J,h,w], to those of the original images.

    `flip_order` [J] is `Skeleton.flip_order`. Unbiased crops map corner cells to corner cells, so
    the maps need no `shift` by a cell to the right, which HRNet's crops do.
    """
    flipped = heatmaps[:, list(flip_order)].flip(-1)
    return torch.cat((flipped[..., :1], flipped[..., :-1]), dim=-1) if shift else flipped


def _is_near(position: Tensor, length: int, sigma: float) -> Tensor:
    """Whether a joint's 3σ box overlaps cells 0 … length-1 of one axis; false for NaN."""
    reach = 3 * sigma
    return ((position - reach).trunc() < length) & ((position + reach + 1).trunc() >= 0)


def _gaussian(position: Tensor, is_visible: Tensor, length: int, sigma: float) -> Tensor:
    """One axis of the Gaussians, [B,J,length]; zero if a joint is not visible.

    The 2D Gaussian is the product of its axes, so exp is computed for h+w cells, not for h·w.
    """
    cells = torch.arange(length, dtype=position.dtype, device=position.device)
    values = torch.exp((cells - position.unsqueeze(-1)).square() / (-2 * sigma**2))
    return torch.where(is_visible.unsqueeze(-1), values, 0)


def _quarter_step(heatmaps: Tensor, peak: Tensor) -> Tensor:
    """A quarter of a cell towards the higher neighbour in x and in y, [B,J,2]; 0 at the border."""
    height, width = heatmaps.shape[-2:]
    f, (x, y) = _neighbourhood(heatmaps, peak), peak.unbind(-1)
    step = torch.stack((f[..., 2, 3] - f[..., 2, 1], f[..., 3, 2] - f[..., 1, 2]), dim=-1).sign()
    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    return torch.where(inner.unsqueeze(-1), step / 4, 0)


def _newton_step(heatmaps: Tensor, peak: Tensor, scores: Tensor, blur_kernel: int) -> Tensor:
    """Offset from the highest cell to the maximum of the log of the blurred map, [B,J,2] in cells.

    Zero at the border, where differences would leave the map, and if there is no such maximum.
    """
    height, width = heatmaps.shape[-2:]
    blurred = _blur(heatmaps, blur_kernel)
    rescale = scores / blurred.amax(dim=(-2, -1))
    cells = _neighbourhood(blurred, peak) * rescale[..., None, None]
    f = cells.clamp(min=1e-10).log()  # [B,J,5,5], the peak at [2,2]

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
    # A determinant of 0 and a blurred map without a positive cell give inf or NaN.
    usable = inner & step.isfinite().all(dim=-1)
    return torch.where(usable.unsqueeze(-1), step, 0)


def _blur(maps: Tensor, kernel: int) -> Tensor:
    """Gaussian blur of [B,J,h,w] with a zero border and OpenCV's σ for that kernel size.

    A sum of shifted maps: on CPU at least as fast as matrix products, much faster than convolution,
    and in float32 under autocast and TF32 too. Exported networks use matrix products, because other
    runtimes copy a map to add to it.
    """
    assert kernel % 2 == 1, f"blur kernel must be odd, not {kernel}"
    radius = kernel // 2
    sigma = 0.3 * (radius - 1) + 0.8
    weights = [math.exp(-(shift**2) / (2 * sigma**2)) for shift in range(radius + 1)]
    total = 2 * sum(weights) - weights[0]
    if is_exporting():
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
    """Symmetric band matrix [length, length] of the blur along one axis."""
    cell = torch.arange(length)
    shift = (cell[:, None] - cell).abs().clamp(max=len(weights))
    return torch.tensor([*weights, 0.0])[shift]


def _neighbourhood(maps: Tensor, peak: Tensor) -> Tensor:
    """The 5×5 cells around each peak, [B,J,5,5]; cells outside the map repeat the border."""
    height, width = maps.shape[-2:]
    offsets = torch.arange(-2, 3, device=peak.device)
    x, y = (peak.unsqueeze(-1) + offsets).unbind(-2)
    cells = y.clamp(0, height - 1).unsqueeze(-1) * width + x.clamp(0, width - 1).unsqueeze(-2)
    return maps.flatten(2).gather(-1, cells.flatten(2)).unflatten(-1, (5, 5))
