"""Which values are possible, and which keys have no effect (any more)."""

import re
import reprlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from yacs.config import CfgNode as Node

from lib.config.default import get_cfg
from lib.utils.errors import UserError
from lib.utils.text import brief, can_be_path

Holds = Callable[[Any, Node], bool]  # of a key's value and the whole configuration


class Rule(NamedTuple):
    """What the value of a key must do; `must` may name other values as {cfg.MODEL.DIM}."""

    key: str
    must: str
    holds: Holds


class Unused(NamedTuple):
    """Why a key has no effect where `when` says so of the whole configuration."""

    key: str
    reason: str
    when: Callable[[Node], bool] = lambda cfg: True


def check(cfg: Node, origin_of: Callable[[str], str] = lambda key: "configuration") -> None:
    """Raise UserError, one line with key, value and origin, at the first impossible value.

    `origin_of` says where a key was set: a file, the command line.
    """
    for rule in RULES:
        value = value_of(cfg, rule.key)
        if not rule.holds(value, cfg):
            raise fault(origin_of(rule.key), rule.key, value, f"must {rule.must.format(cfg=cfg)}")


def unused_keys(cfg: Node) -> dict[str, str]:
    """Return the keys set to other than their default that have no effect: dotted key -> reason."""
    defaults = get_cfg()
    return {
        unused.key: unused.reason
        for unused in NO_LONGER_USED
        if value_of(cfg, unused.key) != value_of(defaults, unused.key) and unused.when(cfg)
    }


def fault(origin: str, key: str, value: Any, text: str) -> UserError:
    """Return the error, one line, for a value of a key that `origin` set."""
    short = reprlib.Repr()
    short.maxstring, short.maxlist, short.maxtuple = 100, 12, 12
    try:
        shown = short.repr(value)
    except ValueError:  # a number of more than 4300 digits
        shown = "a huge number"
    return UserError(" ".join(f"{origin}: {brief(key)} = {shown}: {text}".split()))


def value_of(cfg: Node, key: str) -> Any:
    """Return the value of a dotted key."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _rules(keys: str, must: str, holds: Holds) -> list[Rule]:
    return [Rule(key, must, holds) for key in keys.split()]


def _one_of(key: str, *names: str) -> Rule:
    return Rule(key, f"be one of {', '.join(names)}", lambda value, cfg: value in names)


def _rises(values: Sequence[int], first: int) -> bool:
    """Whether the values are strictly increasing, from `first` or more on."""
    return all(a < b for a, b in zip([first - 1, *values], values, strict=False))


def _is_size(value: Sequence[int], cfg: Node) -> bool:
    return len(value) == 2 and min(value) >= 1


def _is_heatmap(value: Sequence[int], cfg: Node) -> bool:
    return _is_size(value, cfg) and min(value) >= 2


def _names_layers(extra: Node, cfg: Node) -> bool:
    layers = extra.get("PRETRAINED_LAYERS", [])
    return isinstance(layers, list | tuple) and all(isinstance(name, str) for name in layers)


def _patch_fits(patch: Sequence[int], cfg: Node) -> bool:
    return all(side // 4 % p == 0 for side, p in zip(cfg.MODEL.IMAGE_SIZE, patch, strict=True))


# Published networks that prune nothing; some of their files say fewer layers than 9.
_DENSE = ("pose_resnet", "pose_hrnet", "pose_tokenpose_t", "pose_tokenpose_b", "pose_tokenpose_l")


def _layers_exist(layers: Sequence[int], cfg: Node) -> bool:
    model = cfg.MODEL
    if model.SPARSITY.PRUNE == "none" or model.NAME in _DENSE:
        return True
    return all(layer < model.TRANSFORMER_DEPTH for layer in layers)


def _is_name(text: str, cfg: Node) -> bool:
    """Whether a folder can have that name, and so that it stays where it is made."""
    return re.fullmatch(r"[\w-]{1,100}", text) is not None


# In this order: a rule may take for granted what those above it ask.
RULES: tuple[Rule, ...] = (
    *_rules(
        """OUTPUT_DIR LOG_DIR DATA_DIR MODEL.PRETRAINED DATASET.ROOT DATASET.TRAIN_SET
        DATASET.TEST_SET TRAIN.CHECKPOINT TEST.MODEL_FILE""",
        "be a path: no control characters, names of at most 255 bytes",
        lambda path, cfg: can_be_path(path),
    ),
    *_rules("MODEL.NAME DATASET.DATASET", "be a name of letters, digits, _ and -", _is_name),
    Rule(
        "GPUS",
        "be one or more different numbers of devices, from 0 on",
        lambda gpus, cfg: len(gpus) == len(set(gpus)) and min(gpus, default=-1) >= 0,
    ),
    *_rules(
        """WORKERS MODEL.SPARSITY.JOINT_DEPTH DATASET.SCALE_FACTOR DATASET.ROT_FACTOR
        DATASET.NUM_JOINTS_HALF_BODY TRAIN.LR_END TRAIN.WARMUP_STEPS TRAIN.WD TRAIN.BEGIN_EPOCH
        TRAIN.CLIP_GRAD TRAIN.SKIP_NOT_FINITE TRAIN.CHECKPOINT_STEPS TRAIN.CHECKPOINT_MINUTES
        DATASET.SKIP_BAD_IMAGES DATASET.COLOR DATASET.CUTOUT MODEL.DROP_PATH""",
        "be 0 or more",
        lambda value, cfg: value >= 0,
    ),
    *_rules(
        """PRINT_FREQ MODEL.NUM_JOINTS MODEL.DIM MODEL.TRANSFORMER_DEPTH MODEL.TRANSFORMER_HEADS
        TRAIN.BATCH_SIZE_PER_GPU TRAIN.ACCUMULATE TEST.BATCH_SIZE_PER_GPU""",
        "be 1 or more",
        lambda value, cfg: value >= 1,
    ),
    *_rules(
        "MODEL.SIGMA MODEL.TRANSFORMER_MLP_RATIO TRAIN.LR TRAIN.LR_FACTOR TRAIN.ADAM_EPS",
        "be greater than 0",
        lambda value, cfg: value > 0,
    ),
    Rule("TRAIN.LR_FACTOR", "be at most 1", lambda factor, cfg: factor <= 1),
    Rule("SEED", "lie between 0 and 2^32 - 1", lambda seed, cfg: 0 <= seed < 2**32),
    # The network
    _one_of("MODEL.TARGET_TYPE", "gaussian"),
    *_rules(
        "MODEL.IMAGE_SIZE MODEL.PATCH_SIZE",
        "be [width, height], both 1 or more",
        _is_size,
    ),
    Rule("MODEL.HEATMAP_SIZE", "be [width, height], both 2 or more", _is_heatmap),
    Rule("MODEL.EXTRA", "name PRETRAINED_LAYERS in a list", _names_layers),
    Rule(
        "MODEL.IMAGE_SIZE",
        "be divisible by 4, the stride of the stem",
        lambda size, cfg: all(side % 4 == 0 for side in size),
    ),
    Rule(
        "MODEL.IMAGE_SIZE",
        "be more than [4, 4], one cell, of which batch norm has no statistics",
        lambda size, cfg: max(size) > 4,
    ),
    Rule(
        "MODEL.PATCH_SIZE",
        "divide the feature map, a quarter of MODEL.IMAGE_SIZE {cfg.MODEL.IMAGE_SIZE}",
        _patch_fits,
    ),
    Rule(
        "MODEL.DIM",
        "be divisible by MODEL.TRANSFORMER_HEADS {cfg.MODEL.TRANSFORMER_HEADS}",
        lambda dim, cfg: dim % cfg.MODEL.TRANSFORMER_HEADS == 0,
    ),
    Rule(
        "MODEL.TRANSFORMER_MLP_RATIO",
        "give a hidden layer of 1 or more, times MODEL.DIM {cfg.MODEL.DIM}",
        lambda ratio, cfg: round(ratio * cfg.MODEL.DIM) >= 1,
    ),
    Rule("MODEL.DROP_PATH", "be less than 1", lambda share, cfg: share < 1),
    _one_of("MODEL.POS_EMBEDDING_TYPE", "none", "learnable", "sine", "sine-full"),
    Rule(
        "MODEL.DIM",
        "be divisible by 4 where MODEL.POS_EMBEDDING_TYPE is {cfg.MODEL.POS_EMBEDDING_TYPE}",
        lambda dim, cfg: "sine" not in cfg.MODEL.POS_EMBEDDING_TYPE or dim % 4 == 0,
    ),
    Rule(
        "MODEL.HIDDEN_HEATMAP_DIM",
        "be 1 or more, or -1 for the rule",
        lambda dim, cfg: dim == -1 or dim >= 1,
    ),
    _one_of("MODEL.SPARSITY.PRUNE", "none", "connection", "token"),
    Rule(
        "MODEL.SPARSITY.PRUNE_LAYERS",
        "be strictly increasing, from 0 on",
        lambda layers, cfg: _rises(layers, first=0),
    ),
    Rule(
        "MODEL.SPARSITY.PRUNE_LAYERS",
        "lie below MODEL.TRANSFORMER_DEPTH {cfg.MODEL.TRANSFORMER_DEPTH},"
        " unless MODEL.SPARSITY.PRUNE is none",
        _layers_exist,
    ),
    Rule("MODEL.SPARSITY.KEEP_RATIO", "be over 0 and at most 1", lambda keep, cfg: 0 < keep <= 1),
    Rule("MODEL.SPARSITY.JOINT_HOPS", "be -1 (no mask) or more", lambda hops, cfg: hops >= -1),
    # The data
    _one_of("DATASET.DATA_FORMAT", "jpg", "zip"),
    *_rules(
        "DATASET.COLOR DATASET.CUTOUT",
        "be at most 1",
        lambda share, cfg: share <= 1,
    ),
    Rule("DATASET.SCALE_FACTOR", "be less than 1", lambda factor, cfg: factor < 1),
    Rule(
        "DATASET.PROB_HALF_BODY",
        "be at most 1 (negative: never)",
        lambda share, cfg: share <= 1,
    ),
    # Training
    Rule(
        "LOSS.TOPK",
        "lie between 1 and MODEL.NUM_JOINTS {cfg.MODEL.NUM_JOINTS}",
        lambda topk, cfg: not cfg.LOSS.USE_OHKM or 1 <= topk <= cfg.MODEL.NUM_JOINTS,
    ),
    _one_of("TRAIN.PRECISION", "fp32", "bf16", "fp16"),
    _one_of("TRAIN.BATCH_NORM", "own", "sync", "frozen"),
    Rule("TRAIN.EMA_DECAY", "be 0 or more and less than 1", lambda decay, cfg: 0 <= decay < 1),
    _one_of("TEST.PRECISION", "fp32", "bf16", "fp16"),
    _one_of("TEST.RUNTIME", "eager", "compiled", "openvino", "onnx"),
    Rule(
        "TEST.PRECISION",
        "be fp32 or bf16 where TEST.RUNTIME is openvino",
        lambda kind, cfg: kind != "fp16" or cfg.TEST.RUNTIME != "openvino",
    ),
    Rule(
        "TEST.PRECISION",
        "be fp32 where TEST.RUNTIME is onnx",
        lambda kind, cfg: kind == "fp32" or cfg.TEST.RUNTIME != "onnx",
    ),
    _one_of("TRAIN.OPTIMIZER", "adam", "adamw", "sgd"),
    _one_of("TRAIN.LR_SCHEDULER", "MultiStepLR", "CosineAnnealingLR"),
    Rule(
        "TRAIN.LR_STEP",
        "be strictly increasing, from 1 on",
        lambda steps, cfg: _rises(steps, first=1),
    ),
    Rule("TRAIN.MOMENTUM", "be 0 or more and less than 1", lambda m, cfg: 0 <= m < 1),
    Rule(
        "TRAIN.NESTEROV",
        "be false where sgd has no TRAIN.MOMENTUM",
        lambda on, cfg: not on or cfg.TRAIN.OPTIMIZER != "sgd" or cfg.TRAIN.MOMENTUM > 0,
    ),
    Rule(
        "TRAIN.END_EPOCH",
        "be greater than TRAIN.BEGIN_EPOCH {cfg.TRAIN.BEGIN_EPOCH}",
        lambda end, cfg: end > cfg.TRAIN.BEGIN_EPOCH,
    ),
    # Testing
    Rule("TEST.BLUR_KERNEL", "be odd, from 1 to 999", lambda k, cfg: 1 <= k <= 999 and k % 2 == 1),
)


def _unused(keys: str, reason: str, when: Callable[[Node], bool]) -> list[Unused]:
    return [Unused(key, reason, when) for key in keys.split()]


NO_LONGER_USED: tuple[Unused, ...] = (
    Unused("TRAIN.CHECKPOINT", "TRAIN.RESUME is False", lambda cfg: not cfg.TRAIN.RESUME),
    Unused("TRAIN.ADAM_EPS", "sgd has none", lambda cfg: cfg.TRAIN.OPTIMIZER == "sgd"),
    Unused("GPUS", "the first is used; run torchrun for more", lambda cfg: len(cfg.GPUS) > 1),
    Unused("RANK", "torchrun says it"),
    Unused("MODEL.TAG_PER_JOINT", "of networks for many people at once"),
    *_unused(
        """MODEL.BASE_CHANNEL MODEL.NUM_BRANCHES MODEL.MULTI_TRANSFORMER_DEPTH
        MODEL.MULTI_TRANSFORMER_HEADS MODEL.MULTI_DIM""",
        "TokenPose-S has no such part",
        lambda cfg: cfg.MODEL.NAME == "pose_tokenpose_s",
    ),
    *_unused(
        "MODEL.SPARSITY.PRUNE_LAYERS MODEL.SPARSITY.KEEP_RATIO",
        "MODEL.SPARSITY.PRUNE is none",
        lambda cfg: cfg.MODEL.SPARSITY.PRUNE == "none",
    ),
    Unused(
        "MODEL.SPARSITY.JOINT_HOPS",
        "MODEL.SPARSITY.JOINT_DEPTH is 0",
        lambda cfg: cfg.MODEL.SPARSITY.JOINT_DEPTH == 0,
    ),
    Unused("LOSS.TOPK", "LOSS.USE_OHKM is false", lambda cfg: not cfg.LOSS.USE_OHKM),
    Unused("DATASET.HYBRID_JOINTS_TYPE", "it was only a part of the name of the output folder"),
    Unused("TRAIN.GAMMA1", "no optimizer takes it"),
    Unused("TRAIN.GAMMA2", "no optimizer takes it"),
    Unused("TRAIN.WD", "adam takes none in this family", lambda cfg: cfg.TRAIN.OPTIMIZER == "adam"),
    *_unused(
        "TRAIN.MOMENTUM TRAIN.NESTEROV",
        "only sgd takes it",
        lambda cfg: cfg.TRAIN.OPTIMIZER != "sgd",
    ),
    *_unused(
        "TRAIN.LR_STEP TRAIN.LR_FACTOR",
        "only MultiStepLR takes it",
        lambda cfg: cfg.TRAIN.LR_SCHEDULER != "MultiStepLR",
    ),
    Unused(
        "TRAIN.LR_END",
        "only CosineAnnealingLR takes it",
        lambda cfg: cfg.TRAIN.LR_SCHEDULER != "CosineAnnealingLR",
    ),
    Unused("TEST.SHIFT_HEATMAP", "the unbiased crop needs no shift"),
    Unused("TEST.BLUR_KERNEL", "TEST.POST_PROCESS is false", lambda cfg: not cfg.TEST.POST_PROCESS),
    *_unused(
        """TEST.USE_GT_BBOX TEST.IMAGE_THRE TEST.NMS_THRE TEST.SOFT_NMS TEST.OKS_THRE
        TEST.IN_VIS_THRE TEST.COCO_BBOX_FILE TEST.BBOX_THRE""",
        "only COCO's score takes it",
        lambda cfg: cfg.DATASET.DATASET != "coco",
    ),
)
