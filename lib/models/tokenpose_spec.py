"""How a configuration builds TokenPose: its rules, its parts, its published weights."""

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from yacs.config import CfgNode

from lib.config.check import (
    Ignored,
    Rule,
    check,
    check_name,
    ignored_of,
    ignored_unless,
    is_increasing,
    is_size,
    one_of,
    rules_of,
)
from lib.dataset import build_skeleton
from lib.models import backbones
from lib.models.backbone import Backbone
from lib.models.heads import FilterHead, MlpHead
from lib.models.position import KINDS, Position
from lib.models.pruning import PRUNERS, prune_modes
from lib.models.spec import ModelSpec, check_extra
from lib.models.tokenpose import (
    JointLayers,
    PatchEmbedding,
    SparseTransformer,
    TokenPose,
    init_transformer,
)
from lib.models.transformer import Block
from lib.utils.checkpoint import PublishedNames


def build_tokenpose(cfg: CfgNode) -> TokenPose:
    """Build TokenPose-S, -T, -B or -L: its own backbone, or another, then the transformer."""
    cfg, parts = backbones.own_backbone(cfg), _parts(cfg)
    model, sparsity = cfg.MODEL, cfg.MODEL.SPARSITY
    dim, num_joints = model.DIM, model.NUM_JOINTS
    backbone = backbones.build_backbone(cfg, strides=_head_strides(cfg))
    by_head = not _is_s(cfg) or model.ATTENTION_SCALE == "head"
    width = dim // model.TRANSFORMER_HEADS if by_head else dim

    def blocks(depth: int) -> list[Block]:
        heads, ratio = model.TRANSFORMER_HEADS, model.TRANSFORMER_MLP_RATIO
        drops = [model.DROP_PATH * layer / max(1, depth - 1) for layer in range(depth)]
        return [Block(dim, heads, ratio, scale=width**-0.5, drop_path=drop) for drop in drops]

    transformer = SparseTransformer(
        blocks(parts * model.TRANSFORMER_DEPTH),
        Position(model.POS_EMBEDDING_TYPE, num_joints, patch_grid(cfg), dim),
        pruner=PRUNERS.get(sparsity.PRUNE),
        prune_layers=tuple(sparsity.PRUNE_LAYERS),
        keep_ratio=sparsity.KEEP_RATIO,
        parts=parts,
    )
    network = TokenPose(
        backbone=backbone,
        patches=PatchEmbedding(backbone.channels, tuple(model.PATCH_SIZE), dim),
        transformer=transformer,
        joint_layers=_joint_layers(cfg, blocks(sparsity.JOINT_DEPTH)),
        head=_head(cfg, backbone, parts * dim),
        num_joints=num_joints,
    )
    network.published_names = _names_of_parts(model.TRANSFORMER_DEPTH)
    if model.INIT:
        network.patches.init_weights()
        for part in (network.transformer, network.joint_layers):
            part.apply(init_transformer)
        if isinstance(network.head, MlpHead):
            network.head.apply(init_transformer)
    return network


def _is_s(cfg: CfgNode) -> bool:
    """Whether attention may be scaled by the full width; published T, B and L take a head's."""
    return cfg.MODEL.NAME == "pose_tokenpose_s"


def _parts(cfg: CfgNode) -> int:
    """Return how many transformers of TRANSFORMER_DEPTH follow each other."""
    return 3 if cfg.MODEL.NAME == "pose_tokenpose_l" else 1


def _head_strides(cfg: CfgNode) -> tuple[int, ...]:
    """Return the strides of the features that the head takes."""
    return tuple(cfg.MODEL.FILTER.STRIDES) if cfg.MODEL.HEAD == "filter" else ()


def _head(cfg: CfgNode, backbone: Backbone, dim: int) -> nn.Module:
    model = cfg.MODEL
    width, height = model.HEATMAP_SIZE
    if model.HEAD == "mlp":
        default = model.HIDDEN_HEATMAP_DIM < 1
        hidden = width * height // 8 if default else model.HIDDEN_HEATMAP_DIM
        return MlpHead(dim, hidden, (width, height))
    channels = {stride: backbone.feature_channels[stride] for stride in _head_strides(cfg)}
    # Heatmap cells along a side of a cell of the finest features
    upsample = min(channels) * width // model.IMAGE_SIZE[0]
    return FilterHead(dim, model.NUM_JOINTS, channels, model.FILTER.DIM, upsample)


def _joint_layers(cfg: CfgNode, blocks: list[Block]) -> nn.Module:
    if not blocks:
        return nn.Identity()
    mask = build_skeleton(cfg).joint_mask(cfg.MODEL.SPARSITY.JOINT_HOPS)
    return JointLayers(blocks, torch.from_numpy(mask))


def patch_grid(cfg: CfgNode) -> tuple[int, int]:
    """Return how many patches, and so visual tokens, lie along (width, height)."""
    cfg = backbones.own_backbone(cfg)
    stride = cfg.MODEL.BACKBONE_STRIDE
    (width, height), patch = cfg.MODEL.IMAGE_SIZE, cfg.MODEL.PATCH_SIZE
    return width // stride // patch[0], height // stride // patch[1]


def _patch_fits(patch: Sequence[int], cfg: CfgNode) -> bool:
    stride = cfg.MODEL.BACKBONE_STRIDE
    return all(s // stride % p == 0 for s, p in zip(cfg.MODEL.IMAGE_SIZE, patch, strict=True))


def _layers_exist(layers: Sequence[int], cfg: CfgNode) -> bool:
    is_dense = cfg.MODEL.SPARSITY.PRUNE == "none"
    depth = _parts(cfg) * cfg.MODEL.TRANSFORMER_DEPTH
    return is_dense or all(layer < depth for layer in layers)


def _filter_fits(size: Sequence[int], cfg: CfgNode) -> bool:
    """Whether the finest features times 1, 2 or 4 give the heatmaps."""
    finest = [side // cfg.MODEL.FILTER.STRIDES[0] for side in cfg.MODEL.IMAGE_SIZE]
    return any(list(size) == [side * upsample for side in finest] for upsample in (1, 2, 4))


def check_tokenpose(cfg: CfgNode) -> None:
    """Raise UserError at the first key with a value that TokenPose cannot have."""
    cfg = backbones.own_backbone(cfg)
    # Published files of all have the stages of HRNet.
    check_extra(cfg, "STAGE2", "STAGE3", "STAGE4", "FINAL_CONV_KERNEL")
    check(cfg, (one_of("MODEL.HEAD", "mlp", "filter"),))
    backbones.check_backbone(cfg, strides=_head_strides(cfg))
    if cfg.MODEL.HEAD == "filter":
        check(cfg, FILTER_RULES)
    check_name(cfg, "MODEL.SPARSITY.PRUNE", prune_modes())
    check(cfg, RULES)
    backbones.check_features(cfg, strides=_head_strides(cfg))


FILTER_RULES: tuple[Rule, ...] = (
    Rule(
        "MODEL.FILTER.STRIDES",
        "be one or more strides, each twice the one before",
        lambda strides, cfg: bool(strides) and all(b == 2 * a for a, b in pairwise(strides)),
    ),
    Rule("MODEL.FILTER.DIM", "be 1 or more", lambda dim, cfg: dim >= 1),
    Rule(
        "MODEL.IMAGE_SIZE",
        "be divisible by all of MODEL.FILTER.STRIDES {cfg.MODEL.FILTER.STRIDES}",
        lambda size, cfg: all(s % stride == 0 for s in size for stride in cfg.MODEL.FILTER.STRIDES),
    ),
    Rule(
        "MODEL.HEATMAP_SIZE",
        "be MODEL.IMAGE_SIZE {cfg.MODEL.IMAGE_SIZE} by the first of MODEL.FILTER.STRIDES "
        "{cfg.MODEL.FILTER.STRIDES}, times 1, 2 or 4",
        _filter_fits,
    ),
)

# In this order: a rule may rely on those before it.
RULES: tuple[Rule, ...] = (
    *rules_of(
        "MODEL.DIM MODEL.TRANSFORMER_DEPTH MODEL.TRANSFORMER_HEADS",
        "be 1 or more",
        lambda value, cfg: value >= 1,
    ),
    Rule(
        "MODEL.TRANSFORMER_MLP_RATIO",
        "be greater than 0 and give a hidden layer of 1 or more, times MODEL.DIM {cfg.MODEL.DIM}",
        lambda ratio, cfg: ratio > 0 and round(ratio * cfg.MODEL.DIM) >= 1,
    ),
    Rule("MODEL.DROP_PATH", "be 0 or more and less than 1", lambda share, cfg: 0 <= share < 1),
    Rule("MODEL.PATCH_SIZE", "be [width, height], both 1 or more", lambda size, cfg: is_size(size)),
    Rule(
        "MODEL.IMAGE_SIZE",
        "be divisible by {cfg.MODEL.BACKBONE_STRIDE}, the stride of the backbone",
        lambda size, cfg: all(side % cfg.MODEL.BACKBONE_STRIDE == 0 for side in size),
    ),
    Rule(
        "MODEL.IMAGE_SIZE",
        "give more than one feature cell: batch norm has no statistics of one",
        lambda size, cfg: max(size) > cfg.MODEL.BACKBONE_STRIDE,
    ),
    Rule(
        "MODEL.PATCH_SIZE",
        "divide the feature map, MODEL.IMAGE_SIZE {cfg.MODEL.IMAGE_SIZE} by stride "
        "{cfg.MODEL.BACKBONE_STRIDE}",
        _patch_fits,
    ),
    Rule(
        "MODEL.DIM",
        "be divisible by MODEL.TRANSFORMER_HEADS {cfg.MODEL.TRANSFORMER_HEADS}",
        lambda dim, cfg: dim % cfg.MODEL.TRANSFORMER_HEADS == 0,
    ),
    one_of("MODEL.ATTENTION_SCALE", "dim", "head"),
    one_of("MODEL.POS_EMBEDDING_TYPE", *KINDS),
    Rule(
        "MODEL.DIM",
        "be divisible by 4 if MODEL.POS_EMBEDDING_TYPE is {cfg.MODEL.POS_EMBEDDING_TYPE}",
        lambda dim, cfg: "sine" not in cfg.MODEL.POS_EMBEDDING_TYPE or dim % 4 == 0,
    ),
    Rule(
        "MODEL.HIDDEN_HEATMAP_DIM",
        "be 1 or more, or -1 for the default",
        lambda dim, cfg: dim == -1 or dim >= _is_s(cfg),  # 0 is the default too in T, B and L
    ),
    Rule(
        "MODEL.SPARSITY.PRUNE_LAYERS",
        "be strictly increasing, from 0 on",
        lambda layers, cfg: is_increasing(layers, first=0),
    ),
    Rule(
        "MODEL.SPARSITY.PRUNE_LAYERS",
        "lie below MODEL.TRANSFORMER_DEPTH {cfg.MODEL.TRANSFORMER_DEPTH} (three times it in"
        " TokenPose-L), unless MODEL.SPARSITY.PRUNE is none",
        _layers_exist,
    ),
    Rule("MODEL.SPARSITY.KEEP_RATIO", "be over 0 and at most 1", lambda keep, cfg: 0 < keep <= 1),
    Rule("MODEL.SPARSITY.JOINT_DEPTH", "be 0 or more", lambda depth, cfg: depth >= 0),
    Rule("MODEL.SPARSITY.JOINT_HOPS", "be -1 (no mask) or more", lambda hops, cfg: hops >= -1),
)


def _export_keys(cfg: CfgNode) -> tuple[str, ...]:
    keys: tuple[str, ...] = (
        *backbones.backbone_keys(cfg), "MODEL.PATCH_SIZE", "MODEL.DIM",
        "MODEL.TRANSFORMER_DEPTH", "MODEL.TRANSFORMER_HEADS", "MODEL.TRANSFORMER_MLP_RATIO",
        "MODEL.ATTENTION_SCALE", "MODEL.POS_EMBEDDING_TYPE", "MODEL.HEAD", "MODEL.SPARSITY.PRUNE",
        "MODEL.SPARSITY.JOINT_DEPTH", "MODEL.SPARSITY.JOINT_HOPS",
    )  # fmt: skip
    if cfg.MODEL.HEAD == "filter":
        keys = (*keys, "MODEL.FILTER.STRIDES", "MODEL.FILTER.DIM")
    if cfg.MODEL.SPARSITY.PRUNE == "none":
        return keys
    return (*keys, "MODEL.SPARSITY.PRUNE_LAYERS", "MODEL.SPARSITY.KEEP_RATIO")


_BLOCK = r"^((?:joint_layers|transformer\.blocks)\.\d+)\."
TOKENPOSE_NAMES = PublishedNames(
    rename=(
        (r"^(features|pre_feature)\.", ""),
        (r"^transformer\.(?=keypoint|pos_|patch|mlp_|transformer)", ""),
        (r"^(conv|bn|layer|transition|stage)(\d)", r"backbone.\1\2"),
        (r"^stem\.", "backbone."),  # of this project's first checkpoints
        (r"^patch_to_embedding\.", "patches."),
        (r"^keypoint_token$", "keypoint_tokens"),
        (r"^pos_embedding$", "transformer.position.table"),
        (r"^joint_transformer\.layers\.", "joint_layers."),
        (r"^transformer\.layers\.", "transformer.blocks."),
        (_BLOCK + r"0\.(fn\.)?norm\.", r"\1.norm1."),
        (_BLOCK + r"0\.(fn\.)+to_qkv\.", r"\1.attention.qkv."),
        (_BLOCK + r"0\.(fn\.)+to_out\.0\.", r"\1.attention.out."),
        (_BLOCK + r"1\.fn\.norm\.", r"\1.norm2."),
        (_BLOCK + r"1\.fn\.fn\.net\.0\.", r"\1.mlp.0."),
        (_BLOCK + r"1\.fn\.fn\.net\.3\.", r"\1.mlp.2."),
        (r"^mlp_head\.", "head."),
    ),
    # Fixed tables, and layers of the published modules that their networks never call.
    ignored=r"(^|\.)joint_mask$|transformer\.norm\.",
)


def _names_of_parts(depth: int) -> PublishedNames:
    """Return the names of TokenPose-L's parts, `transformer1` to `transformer3` of `depth`."""

    def counted_through(match: re.Match[str]) -> str:
        return f"transformer.layers.{(int(match[1]) - 1) * depth + int(match[2])}."

    return PublishedNames(
        ((r"^(?:transformer\.)?transformer(\d)\.layers\.(\d+)\.", counted_through),)
    )


TOKENPOSE = ModelSpec(
    build=build_tokenpose,
    check=check_tokenpose,
    names=TOKENPOSE_NAMES,
    export_keys=_export_keys,
    ignored=(
        *ignored_of(
            """MODEL.NUM_BRANCHES MODEL.MULTI_TRANSFORMER_DEPTH MODEL.MULTI_TRANSFORMER_HEADS
            MODEL.MULTI_DIM""",
            "TokenPose has no such part",
        ),
        backbones.OWN_STRIDE,
        Ignored("MODEL.BASE_CHANNEL", "the backbone has its channels; HRNet, those of its STAGEs"),
        Ignored(
            "MODEL.ATTENTION_SCALE",
            "TokenPose-T, -B and -L scale by a head's width",
            lambda cfg: not _is_s(cfg),
        ),
        *ignored_unless("MODEL.FILTER.STRIDES MODEL.FILTER.DIM", "MODEL.HEAD", "filter"),
        *ignored_unless("MODEL.HIDDEN_HEATMAP_DIM", "MODEL.HEAD", "mlp"),
        *ignored_of(
            "MODEL.SPARSITY.PRUNE_LAYERS MODEL.SPARSITY.KEEP_RATIO",
            "MODEL.SPARSITY.PRUNE is none",
            lambda cfg: cfg.MODEL.SPARSITY.PRUNE == "none",
        ),
        Ignored(
            "MODEL.SPARSITY.JOINT_HOPS",
            "MODEL.SPARSITY.JOINT_DEPTH is 0",
            lambda cfg: cfg.MODEL.SPARSITY.JOINT_DEPTH == 0,
        ),
    ),
)
