"""The backbones by name: TokenPose-S's stem, and any network of timm.

To add one, write a module with the attributes of `Backbone` and name it in `BACKBONES`.
"""

import difflib

import timm
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck
from yacs.config import CfgNode

from lib.config.check import config_error
from lib.models.backbone import Backbone
from lib.models.layers import conv_norm
from lib.models.timm_backbone import TimmBackbone, feature_strides

__all__ = ["BACKBONES", "Backbone", "Stem", "build_backbone", "check_backbone", "check_features"]


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


BACKBONES: dict[str, type[Backbone]] = {"stem": Stem}


def build_backbone(cfg: CfgNode, *, strides: tuple[int, ...] = ()) -> Backbone:
    """Build MODEL.BACKBONE, a name of `BACKBONES` or in timm, with random weights.

    It gives features of MODEL.BACKBONE_STRIDE and, for a head that merges several, of `strides`.
    The first TRAIN.FROZEN_STAGES are frozen.
    """
    name, stride, size = cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE, tuple(cfg.MODEL.IMAGE_SIZE)
    backbone = BACKBONES[name]() if name in BACKBONES else TimmBackbone(name, stride, strides, size)
    if cfg.MODEL.INIT_WEIGHTS:
        backbone.init_weights()
    backbone.freeze(cfg.TRAIN.FROZEN_STAGES)
    return backbone


def check_backbone(cfg: CfgNode, *, strides: tuple[int, ...] = ()) -> None:
    """UserError if there is no MODEL.BACKBONE, or it lacks features that the network needs.

    Needed are those of MODEL.BACKBONE_STRIDE and of `strides`, of the key MODEL.FILTER.STRIDES.
    """
    name = cfg.MODEL.BACKBONE
    if name in BACKBONES:
        kind = BACKBONES[name]
        known, stages = list(kind.strides or (kind.stride,)), kind.stages
    elif timm.is_model(name):
        known = feature_strides(name)
        stages = len(known)
    else:
        names = [*BACKBONES, *timm.list_models()]
        near = difflib.get_close_matches(name, names, 1, 0.0)[0]
        raise config_error(cfg, "MODEL.BACKBONE", f"timm has no such network; did you mean {near}?")
    stride = cfg.MODEL.BACKBONE_STRIDE
    for key, values in (("MODEL.BACKBONE_STRIDE", (stride,)), ("MODEL.FILTER.STRIDES", strides)):
        if not set(values) <= set(known):
            listed = ", ".join(map(str, sorted(set(known))))
            raise config_error(cfg, key, f"{name} has features of stride {listed}")
    if stages < cfg.TRAIN.FROZEN_STAGES:
        raise config_error(cfg, "TRAIN.FROZEN_STAGES", f"{name} has {stages}")


def check_features(cfg: CfgNode, *, strides: tuple[int, ...] = ()) -> None:
    """UserError if a timm backbone lacks a feature map for MODEL.IMAGE_SIZE; see check_backbone."""
    name = cfg.MODEL.BACKBONE
    width, height = cfg.MODEL.IMAGE_SIZE
    if name in BACKBONES:
        return
    try:
        backbone = TimmBackbone(name, cfg.MODEL.BACKBONE_STRIDE, strides, (width, height)).eval()
        with torch.no_grad():
            features = backbone.features(torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError) as error:
        raise config_error(cfg, "MODEL.IMAGE_SIZE", f"{name} does not take it: {error}") from None
    for stride, channels in backbone.feature_channels.items():
        shape = list(features[stride].shape)
        if shape != [1, channels, height // stride, width // stride]:
            raise config_error(cfg, "MODEL.BACKBONE", f"its features {shape} are no feature map")
