"""Backbones: image to feature map. TokenPose-S's stem, and any network of timm.

To add one, write a module with the attributes of `Backbone` and name it in `BACKBONES`.
"""

import difflib
from collections.abc import Callable
from typing import Any, cast

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck

from lib.models.layers import conv_norm
from lib.utils.errors import UserError

Channels3 = tuple[float, float, float]


class Backbone(nn.Module):
    """What a network asks of its backbone: images [B, 3, H, W] -> [B, channels, H/s, W/s].

    `stride` s is image pixels a feature cell. Images are normalised with `mean` and `std`, of RGB
    in the range 0 to 1.
    """

    stride: int
    channels: int
    mean: Channels3 = IMAGENET_DEFAULT_MEAN
    std: Channels3 = IMAGENET_DEFAULT_STD

    def init_weights(self) -> None:
        """Draw the initial weights, if torch's defaults are not meant."""


class Bottleneck(TorchvisionBottleneck):
    """torchvision's ResNet bottleneck, whose batch norms are folded in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, 4·planes, h, w]."""
        if self.downsample is None:
            identity = x
        else:
            identity = conv_norm(self.downsample[0], self.downsample[1], x)
        x = conv_norm(self.conv1, self.bn1, x).relu_()
        x = conv_norm(self.conv2, self.bn2, x).relu_()
        return conv_norm(self.conv3, self.bn3, x).add_(identity).relu_()


class Stem(Backbone):
    """Two 3×3 convolutions of stride 2, then four bottlenecks: [B,3,H,W] -> [B,256,H/4,W/4]."""

    stride = 4
    channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        downsample = nn.Sequential(nn.Conv2d(64, 256, 1, bias=False), nn.BatchNorm2d(256))
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, downsample=downsample), *(Bottleneck(256, 64) for _ in range(3))
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalised -> [B, 256, H/4, W/4]."""
        x = images.contiguous(memory_format=torch.channels_last)
        x = conv_norm(self.conv1, self.bn1, x).relu_()
        x = conv_norm(self.conv2, self.bn2, x).relu_()
        return self.layer1(x)

    def init_weights(self) -> None:
        """Draw the convolutions as torchvision's ResNets do (He et al. 2015, fan out)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class TimmBackbone(Backbone):
    """The feature map of one stride of a timm network, normalised as its weights were trained.

    Weights are random; `MODEL.PRETRAINED` loads them. UserError: timm has no such network, or it
    has no features of that stride.
    """

    def __init__(self, name: str, stride: int) -> None:
        super().__init__()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), 1, 0.0)
            raise UserError(f"MODEL.BACKBONE = {name!r}: timm has no such network; use {near[0]}?")
        try:
            with torch.device("meta"):  # only to read what it has
                info: Any = timm.create_model(name, features_only=True).feature_info
        except (RuntimeError, AttributeError, AssertionError, ValueError) as error:
            raise UserError(f"MODEL.BACKBONE = {name!r}: timm gives no features: {error}") from None
        levels = {reduction: level for level, reduction in enumerate(info.reduction())}
        if stride not in levels:
            known = ", ".join(map(str, levels))
            raise UserError(
                f"MODEL.BACKBONE_STRIDE = {stride}: {name} has features of stride {known}"
            )
        self.network = timm.create_model(
            name, features_only=True, out_indices=(info.out_indices[levels[stride]],)
        )
        self.stride = stride
        self.channels = info.channels()[levels[stride]]
        trained = timm.get_pretrained_cfg(name)
        self.mean = cast(Channels3, trained.mean if trained else IMAGENET_DEFAULT_MEAN)
        self.std = cast(Channels3, trained.std if trained else IMAGENET_DEFAULT_STD)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalised -> [B, channels, H/stride, W/stride]."""
        (features,) = self.network(images.contiguous(memory_format=torch.channels_last))
        return features


BACKBONES: dict[str, Callable[[], Backbone]] = {"stem": Stem}


def build_backbone(name: str, stride: int) -> Backbone:
    """Build a backbone of `BACKBONES`, else the network of that name in timm.

    UserError where there is none, or it has no feature map of that `stride`.
    """
    if name not in BACKBONES:
        return TimmBackbone(name, stride)
    backbone = BACKBONES[name]()
    if backbone.stride != stride:
        raise UserError(
            f"MODEL.BACKBONE_STRIDE = {stride}: {name} has features of stride {backbone.stride}"
        )
    return backbone
