"""Backbones: image to feature map. TokenPose-S's stem, and any network of timm.

To add one, write a module with the attributes of `Backbone` and name it in `BACKBONES`.
"""

import difflib
import functools
from typing import Any, cast

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck
from yacs.config import CfgNode

from lib.config.check import config_error
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
        """Draw the initial weights, unless torch's defaults are used."""


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

    Weights are random.
    """

    def __init__(self, name: str, stride: int) -> None:
        super().__init__()
        info = _feature_info(name)
        level = {reduction: index for index, reduction in enumerate(info.reduction())}[stride]
        self.network = timm.create_model(
            name, features_only=True, out_indices=(info.out_indices[level],)
        )
        self.stride = stride
        self.channels = info.channels()[level]
        trained = timm.get_pretrained_cfg(name)
        self.mean = cast(Channels3, trained.mean if trained else IMAGENET_DEFAULT_MEAN)
        self.std = cast(Channels3, trained.std if trained else IMAGENET_DEFAULT_STD)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalised -> [B, channels, H/stride, W/stride]."""
        (features,) = self.network(images.contiguous(memory_format=torch.channels_last))
        return features


BACKBONES: dict[str, type[Backbone]] = {"stem": Stem}


def build_backbone(name: str, stride: int) -> Backbone:
    """Build a backbone of `BACKBONES`, else the network of that name in timm."""
    return BACKBONES[name]() if name in BACKBONES else TimmBackbone(name, stride)


def check_backbone(cfg: CfgNode) -> None:
    """UserError if there is no MODEL.BACKBONE, or it has no features of BACKBONE_STRIDE."""
    name, stride = cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE
    if name in BACKBONES:
        strides = [BACKBONES[name].stride]
    elif timm.is_model(name):
        strides = _feature_info(name).reduction()
    else:
        names = [*BACKBONES, *timm.list_models()]
        near = difflib.get_close_matches(name, names, 1, 0.0)[0]
        raise config_error(cfg, "MODEL.BACKBONE", f"timm has no such network; did you mean {near}?")
    if stride not in strides:
        known = ", ".join(map(str, sorted(set(strides))))
        raise config_error(cfg, "MODEL.BACKBONE_STRIDE", f"{name} has features of stride {known}")


@functools.cache
def _feature_info(name: str) -> Any:
    """Return timm's `FeatureInfo` of a network: strides, channels and indices of its features."""
    try:
        return timm.create_model(name, features_only=True).feature_info
    except (RuntimeError, AttributeError, AssertionError, ValueError) as error:
        raise UserError(f"MODEL.BACKBONE: timm gives no features of {name}: {error}") from None


def check_features(cfg: CfgNode) -> None:
    """UserError if a timm backbone has no feature map for MODEL.IMAGE_SIZE."""
    name, stride = cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE
    width, height = cfg.MODEL.IMAGE_SIZE
    if name in BACKBONES:
        return
    try:
        backbone = TimmBackbone(name, stride).eval()
        with torch.no_grad():
            shape = backbone(torch.zeros(1, 3, height, width)).shape
    except (RuntimeError, AssertionError) as error:
        raise config_error(cfg, "MODEL.IMAGE_SIZE", f"{name} does not take it: {error}") from None
    if shape != (1, backbone.channels, height // stride, width // stride):
        raise config_error(cfg, "MODEL.BACKBONE", f"its features {list(shape)} are no feature map")
