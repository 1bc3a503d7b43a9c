"""Heads: from keypoint tokens to heatmaps."""

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lib.models.transformer import Linear


class MlpHead(nn.Sequential):
    """TokenPose's head: LayerNorm, Linear(dim -> cells); through `hidden` where dim ≤ hidden/2."""

    def __init__(self, dim: int, hidden: int, heatmap_size: tuple[int, int]) -> None:
        cells = math.prod(heatmap_size)
        widths = (dim, hidden, cells) if dim <= hidden / 2 else (dim, cells)
        layers = [(nn.LayerNorm(a), Linear(a, b)) for a, b in pairwise(widths)]
        super().__init__(*(layer for pair in layers for layer in pair))
        self.heatmap_size = heatmap_size

    def forward(  # type: ignore[override]
        self, keypoints: Tensor, features: Mapping[int, Tensor]
    ) -> Tensor:
        """Keypoint tokens [B, J, dim] -> heatmaps [B, J, h, w]; `features` are not used."""
        width, height = self.heatmap_size
        return rearrange(super().forward(keypoints), "b j (h w) -> b j h w", h=height, w=width)


class FilterHead(nn.Module):
    """Each keypoint token is a filter: its heatmap is its product with every cell's embedding.

    As the mask heads of MaskFormer (Cheng et al. 2021) and SAM. All cells share the token, where
    `MlpHead` learns each cell apart. The cells come from the backbone, so visual tokens may be
    pruned. A filter is the joint's own, a weight, plus what its token adds for this image. Heatmaps
    finer than the features take `upsample`² filters a joint, one for each part of a cell, as
    sub-pixel convolution (Shi et al. 2016).
    """

    def __init__(
        self, dim: int, num_joints: int, channels: Mapping[int, int], embed_dim: int, upsample: int
    ) -> None:
        """`channels` of the feature maps by their stride."""
        super().__init__()
        parts = upsample * upsample
        self.pyramid = FeaturePyramid(channels, embed_dim)
        self.norm = nn.BatchNorm2d(embed_dim)
        self.filters = nn.Parameter(torch.randn(num_joints, parts, embed_dim) * 0.01)
        last = Linear(dim, parts * (embed_dim + 1))
        self.mlp = nn.Sequential(nn.LayerNorm(dim), Linear(dim, dim), nn.GELU(), last)
        self.upsample = upsample
        # Heatmaps begin near zero, which most of their cells are.
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)

    def forward(self, keypoints: Tensor, features: Mapping[int, Tensor]) -> Tensor:
        """Tokens [B, J, dim], feature maps by stride -> heatmaps [B, J, h, w]."""
        cells = self.norm(self.pyramid(features))
        parts, embed_dim = self.filters.shape[1:]
        added, bias = self.mlp(keypoints).unflatten(2, (parts, -1)).split((embed_dim, 1), dim=3)
        filters = self.filters + added * embed_dim**-0.5
        heatmaps = filters.flatten(1, 2) @ cells.flatten(2) + bias.flatten(1, 2)
        heatmaps = heatmaps.unflatten(2, cells.shape[2:])
        return F.pixel_shuffle(heatmaps, self.upsample) if self.upsample > 1 else heatmaps


class FeaturePyramid(nn.Module):
    """Merges feature maps, each half the size of the one before, into one of the finest size.

    Top-down as FPN (Lin et al. 2017), with sub-pixel convolution to upsample.
    """

    def __init__(self, channels: Mapping[int, int], dim: int) -> None:
        """`channels` of the feature maps by their stride."""
        super().__init__()
        self.strides = sorted(channels, reverse=True)
        coarsest, *finer = self.strides
        self.top = nn.Conv2d(channels[coarsest], dim, 1)
        self.steps = nn.ModuleList(_UpsampleAndMerge(channels[stride], dim) for stride in finer)

    def forward(self, features: Mapping[int, Tensor]) -> Tensor:
        """{s: [B, C, H/s, W/s]} -> [B, dim, H/s, W/s] of the smallest s."""
        coarsest, *finer = self.strides
        x = self.top(features[coarsest])
        for step, stride in zip(self.steps, finer, strict=True):
            x = step(x, features[stride])
        return x


class _UpsampleAndMerge(nn.Module):
    """Doubles the size of a map, adds a finer one, and mixes neighbours."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(dim, 4 * dim, 1, bias=False)
        self.lateral = nn.Conv2d(channels, dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.mix = nn.Sequential(
            nn.Conv2d(dim, dim, 5, padding=2, groups=dim, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 1),
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """[B, dim, h, w], [B, C, 2h, 2w] -> [B, dim, 2h, 2w]."""
        x = F.pixel_shuffle(self.expand(coarse), 2) + self.lateral(fine)
        x = self.norm(x).relu()
        return x + self.mix(x)
