"""The backbones by name: those of the published networks, and any network of timm.

To add one, write a module with the attributes of `Backbone` and name it in `BACKBONES`.
"""

import difflib

import timm
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.config.check import Ignored, config_error
from lib.models.backbone import Backbone
from lib.models.hrnet import HRNet, build_hrnet, check_hrnet
from lib.models.stem import Stem
from lib.models.timm_backbone import TimmBackbone, feature_strides


class ImagePixels(Backbone):
    """No layers: TokenPose-T takes its patches from the image itself."""

    stride = 1
    channels = 3

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> the same."""
        return images


BACKBONES: dict[str, type[Backbone]] = {"stem": Stem, "image": ImagePixels, "hrnet": HRNet}
# Of networks whose own is not the stem: name and stride.
_OWN = {
    "pose_tokenpose_t": ("image", 1),
    "pose_tokenpose_b": ("hrnet", 4),
    "pose_tokenpose_l": ("hrnet", 4),
    "pose_hrnet": ("hrnet", 4),
    "pose_resnet": ("resnet", 32),
}


def own_backbone(cfg: CfgNode) -> CfgNode:
    """Return `cfg` with the network's own backbone and stride, if MODEL.BACKBONE is stem.

    That of pose_resnet is timm's ResNet with EXTRA.NUM_LAYERS; without the key it is the stem.
    """
    name, stride = _OWN.get(cfg.MODEL.NAME, ("stem", 0))
    if name == "resnet":
        name = f"resnet{cfg.MODEL.EXTRA.NUM_LAYERS}" if "NUM_LAYERS" in cfg.MODEL.EXTRA else "stem"
    if cfg.MODEL.BACKBONE != "stem" or name == "stem":
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE = name, stride
    return cfg


OWN_STRIDE = Ignored(
    "MODEL.BACKBONE_STRIDE",
    "the network's own backbone sets it",
    lambda c: own_backbone(c) is not c,
)


def backbone_keys(cfg: CfgNode) -> tuple[str, ...]:
    """Return the keys that describe the backbone, for `ModelSpec.export_keys`."""
    keys = ("MODEL.BACKBONE", "MODEL.BACKBONE_STRIDE")
    return keys if own_backbone(cfg) is cfg else (*keys, "MODEL.EXTRA")


def build_backbone(cfg: CfgNode, *, strides: tuple[int, ...] = ()) -> Backbone:
    """Build MODEL.BACKBONE, a name of `BACKBONES` or in timm, with random weights.

    It gives features of MODEL.BACKBONE_STRIDE and, for a head that merges several, of `strides`.
    The first TRAIN.FROZEN_STAGES are frozen.
    """
    name, stride, size = cfg.MODEL.BACKBONE, cfg.MODEL.BACKBONE_STRIDE, tuple(cfg.MODEL.IMAGE_SIZE)
    backbone: Backbone
    if name == "hrnet":
        backbone = build_hrnet(cfg)
    elif name in BACKBONES:
        backbone = BACKBONES[name]()
    else:
        backbone = TimmBackbone(name, stride, strides, size)
    if cfg.MODEL.INIT_WEIGHTS:
        backbone.init_weights()
    backbone.freeze(cfg.TRAIN.FROZEN_STAGES)
    return backbone


def check_backbone(cfg: CfgNode, *, strides: tuple[int, ...] = ()) -> None:
    """UserError if there is no MODEL.BACKBONE, or it lacks features that the network needs.

    Needed are those of MODEL.BACKBONE_STRIDE and of `strides`, of the key MODEL.FILTER.STRIDES.
    """
    name = cfg.MODEL.BACKBONE
    if name == "hrnet":
        check_hrnet(cfg)
    if name in BACKBONES:
        kind = BACKBONES[name]
        known, stages = kind.strides or (kind.stride,), kind.stages
    elif timm.is_model(name):
        known = feature_strides(name)
        stages = len(known)
    else:
        names = [*BACKBONES, *timm.list_models()]
        near = difflib.get_close_matches(name.partition(".")[0], names, 1, 0.0)[0]
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
