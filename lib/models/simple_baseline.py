"""SimpleBaseline: a backbone, deconvolutions, and a convolution to heatmaps.

Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018. HRNet needs no
deconvolutions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.config.check import Rule, check, config_error, ignored_of
from lib.models import backbones
from lib.models.backbone import Backbone
from lib.models.hrnet import stage_keys
from lib.models.spec import ModelSpec, PoseNetwork, check_extra
from lib.utils.checkpoint import PublishedNames
from lib.utils.errors import UserError


class SimpleBaseline(PoseNetwork):
    """Features of the backbone, doubled in size by each deconvolution, then 1×1 to heatmaps."""

    def __init__(
        self, *, backbone: Backbone, filters: Sequence[int], kernels: Sequence[int], num_joints: int
    ) -> None:
        """`filters` and `kernels` of the deconvolutions."""
        super().__init__()
        self.backbone = backbone
        self.mean, self.std = backbone.mean, backbone.std
        layers: list[nn.Module] = []
        channels = backbone.channels
        for count, kernel in zip(filters, kernels, strict=True):
            deconvolution = nn.ConvTranspose2d(
                channels, count, kernel, stride=2, padding=(kernel - 1) // 2,
                output_padding=kernel % 2, bias=False,
            )  # fmt: skip
            nn.init.normal_(deconvolution.weight, std=0.001)
            layers += [deconvolution, nn.BatchNorm2d(count), nn.ReLU(inplace=True)]
            channels = count
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(channels, num_joints, 1)
        nn.init.normal_(self.final_layer.weight, std=0.001)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W], normalised with `mean` and `std` -> heatmaps [B, J, h, w]."""
        return self.final_layer(self.deconv_layers(self.backbone(images)))


def build_simple_baseline(cfg: CfgNode) -> SimpleBaseline:
    """Build the network with EXTRA.NUM_DECONV_FILTERS and NUM_DECONV_KERNELS; HRNet has none."""
    extra = cfg.MODEL.EXTRA
    return SimpleBaseline(
        backbone=backbones.build_backbone(backbones.own_backbone(cfg)),
        filters=extra.get("NUM_DECONV_FILTERS", ()),
        kernels=extra.get("NUM_DECONV_KERNELS", ()),
        num_joints=cfg.MODEL.NUM_JOINTS,
    )


def _check(cfg: CfgNode) -> None:
    lists = [cfg.MODEL.EXTRA.get(key) for key in ("NUM_DECONV_FILTERS", "NUM_DECONV_KERNELS")]
    is_valid = all(
        isinstance(values, list | tuple) and all(isinstance(v, int) and v > 0 for v in values)
        for values in lists
    )
    if not is_valid or len(lists[0]) != len(lists[1]):
        raise UserError(
            "MODEL.EXTRA: needs NUM_DECONV_FILTERS and NUM_DECONV_KERNELS, lists of equal length"
        )
    if cfg.MODEL.EXTRA.get("NUM_LAYERS", 50) not in _DEPTHS:
        raise config_error(cfg, "MODEL.EXTRA.NUM_LAYERS", f"must be one of {_DEPTHS}")
    only = {"NUM_DECONV_LAYERS": len(lists[0]), "DECONV_WITH_BIAS": False}
    _check_parts(cfg, only, ("NUM_DECONV_FILTERS", "NUM_DECONV_KERNELS", "NUM_LAYERS"))


def _check_parts(cfg: CfgNode, only: Mapping[str, Any], more: Sequence[str]) -> None:
    """Check MODEL.EXTRA, of which `only` gives the single values, and the sizes of the parts."""
    only = {"FINAL_CONV_KERNEL": 1, **only}
    check_extra(cfg, *only, *more)
    for name, value in only.items():
        if cfg.MODEL.EXTRA.get(name, value) != value:
            raise config_error(cfg, f"MODEL.EXTRA.{name}", f"must be {value}")
    cfg = backbones.own_backbone(cfg)
    backbones.check_backbone(cfg)
    check(cfg, (_HEATMAPS,))
    backbones.check_features(cfg)


def _is_upsampled(size: Sequence[int], cfg: CfgNode) -> bool:
    factor = 2 ** len(cfg.MODEL.EXTRA.get("NUM_DECONV_FILTERS", ()))
    stride = cfg.MODEL.BACKBONE_STRIDE
    return list(size) == [side // stride * factor for side in cfg.MODEL.IMAGE_SIZE]


_DEPTHS = (18, 34, 50, 101, 152)  # layers of ResNets
_HEATMAPS = Rule(
    "MODEL.HEATMAP_SIZE",
    "be MODEL.IMAGE_SIZE {cfg.MODEL.IMAGE_SIZE} by the backbone's stride "
    "{cfg.MODEL.BACKBONE_STRIDE}, doubled by each deconvolution",
    _is_upsampled,
)
_MMPOSE_HEAD = (r"^(keypoint_)?head\.(?=deconv_layers|final_layer)", "")  # of mmpose 0.x, 1.x

SIMPLE_BASELINE = ModelSpec(
    build=build_simple_baseline,
    check=_check,
    names=PublishedNames(
        (
            (r"^(backbone\.)?(conv1|bn1|layer\d)\.", r"backbone.network.model.\2."),
            _MMPOSE_HEAD,
        )
    ),
    export_keys=backbones.backbone_keys,
    ignored=(
        backbones.OWN_STRIDE,
        *ignored_of(
            """MODEL.HEAD MODEL.FILTER.STRIDES MODEL.FILTER.DIM MODEL.DIM MODEL.PATCH_SIZE
            MODEL.TRANSFORMER_DEPTH MODEL.TRANSFORMER_HEADS MODEL.TRANSFORMER_MLP_RATIO
            MODEL.ATTENTION_SCALE MODEL.POS_EMBEDDING_TYPE MODEL.HIDDEN_HEATMAP_DIM MODEL.DROP_PATH
            MODEL.INIT MODEL.SPARSITY.PRUNE MODEL.SPARSITY.PRUNE_LAYERS MODEL.SPARSITY.KEEP_RATIO
            MODEL.SPARSITY.JOINT_DEPTH MODEL.SPARSITY.JOINT_HOPS MODEL.BASE_CHANNEL
            MODEL.NUM_BRANCHES MODEL.MULTI_TRANSFORMER_DEPTH MODEL.MULTI_TRANSFORMER_HEADS
            MODEL.MULTI_DIM""",
            "this network has no such part",
        ),
    ),
)

POSE_HRNET = replace(
    SIMPLE_BASELINE,
    check=lambda cfg: _check_parts(cfg, {}, stage_keys(cfg)),
    names=PublishedNames(
        ((r"^(conv|bn|layer|transition|stage)(\d)", r"backbone.\1\2"), _MMPOSE_HEAD)
    ),
)
