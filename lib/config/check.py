"""Rules for the values of keys, and the keys that have no effect."""

import difflib
import reprlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from yacs.config import CfgNode

from lib.config.default import get_cfg
from lib.utils.errors import UserError
from lib.utils.text import is_valid_path, shorten

ORIGINS = "__origins__"  # attribute of a loaded configuration: key -> the file that set it

Holds = Callable[[Any, CfgNode], bool]  # (value of the key, whole configuration)


class Rule(NamedTuple):
    """A condition on the value of a key; `must` may quote other values as {cfg.MODEL.DIM}."""

    key: str
    must: str
    holds: Holds


class Ignored(NamedTuple):
    """A key that has no effect if `when` holds for the configuration, and why."""

    key: str
    reason: str
    when: Callable[[CfgNode], bool] = lambda cfg: True


def check(cfg: CfgNode, rules: Iterable[Rule] | None = None) -> None:
    """UserError for the first rule that is broken, by default of those for every network."""
    for rule in RULES if rules is None else rules:
        value = value_of(cfg, rule.key)
        if not rule.holds(value, cfg):
            raise config_error(cfg, rule.key, f"must {rule.must.format(cfg=cfg)}")


def ignored_keys(cfg: CfgNode, more: Sequence[Ignored] = ()) -> dict[str, str]:
    """Return the keys changed from their default that have no effect: dotted key -> reason."""
    defaults = get_cfg()
    return {
        ignored.key: ignored.reason
        for ignored in (*IGNORED_KEYS, *more)
        if value_of(cfg, ignored.key) != value_of(defaults, ignored.key) and ignored.when(cfg)
    }


def check_name(cfg: CfgNode, key: str, names: Collection[str]) -> None:
    """UserError, which names the nearest, unless the value of a key is one of `names`."""
    name = value_of(cfg, key)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.0)[0]
        raise config_error(cfg, key, f"must be one of {', '.join(names)}; did you mean {near}?")


def config_error(cfg: CfgNode, key: str, text: str) -> UserError:
    """Return the error for a key of a loaded configuration; names the file that set it."""
    origin = cfg.__dict__.get(ORIGINS, {}).get(key, "configuration")
    return value_error(origin, key, value_of(cfg, key), text)


def value_error(origin: str, key: str, value: Any, text: str) -> UserError:
    """Return the error, one line, for a value that `origin`, a file or command line, set."""
    short = reprlib.Repr()
    short.maxstring, short.maxlist, short.maxtuple = 100, 12, 12
    shown = short.repr(value)
    return UserError(" ".join(f"{origin}: {shorten(key)} = {shown}: {text}".split()))


def value_of(cfg: CfgNode, key: str) -> Any:
    """Return the value of a dotted key."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def rules_of(keys: str, must: str, holds: Holds) -> list[Rule]:
    """Return the same rule for several keys, separated by spaces."""
    return [Rule(key, must, holds) for key in keys.split()]


def one_of(key: str, *names: str) -> Rule:
    """Return the rule that a key is one of `names`."""
    return Rule(key, f"be one of {', '.join(names)}", lambda value, cfg: value in names)


def ignored_of(keys: str, *reason: Any) -> list[Ignored]:
    """Return the same `Ignored` for several keys, separated by spaces."""
    return [Ignored(key, *reason) for key in keys.split()]


def ignored_unless(keys: str, key: str, value: bool | str) -> list[Ignored]:
    """Return `Ignored` for several keys, separated by spaces, that only `key = value` uses."""
    return ignored_of(
        keys, f"only {key} = {value} uses it", lambda cfg: value_of(cfg, key) != value
    )


def is_increasing(values: Sequence[int], first: int) -> bool:
    """Whether the values are strictly increasing, and none is below `first`."""
    return all(a < b for a, b in zip([first - 1, *values], values, strict=False))


def is_size(value: Sequence[int], smallest: int = 1) -> bool:
    """Whether a value is [width, height], both `smallest` or more."""
    return len(value) == 2 and min(value) >= smallest


PRECISIONS = ("fp32", "bf16", "fp16")  # of matrix products and convolutions
RUNTIMES = {  # and the precisions they compute in
    "eager": PRECISIONS,
    "compiled": PRECISIONS,
    "openvino": ("fp32", "bf16"),
    "onnx": ("fp32",),
}


def _has_layer_names(extra: CfgNode, cfg: CfgNode) -> bool:
    layers = extra.get("PRETRAINED_LAYERS", [])
    return isinstance(layers, list | tuple) and all(isinstance(name, str) for name in layers)


_PATHS = """OUTPUT_DIR LOG_DIR DATA_DIR MODEL.PRETRAINED DATASET.ROOT DATASET.SKELETON
    DATASET.TRAIN_SET DATASET.TEST_SET TRAIN.CHECKPOINT TEST.MODEL_FILE
    TEST.COCO_BBOX_FILE"""
_NOT_NEGATIVE = """WORKERS DATASET.SCALE_FACTOR DATASET.ROT_FACTOR DATASET.NUM_JOINTS_HALF_BODY
    DATASET.SKIP_BAD_IMAGES DATASET.COLOR DATASET.CUTOUT TRAIN.LR_END TRAIN.WARMUP_STEPS TRAIN.WD
    TRAIN.BEGIN_EPOCH TRAIN.CLIP_GRAD TRAIN.SKIP_NOT_FINITE TRAIN.CHECKPOINT_STEPS
    TRAIN.CHECKPOINT_MINUTES TRAIN.BACKBONE_LR TRAIN.FROZEN_STAGES"""
_COUNTS = """PRINT_FREQ MODEL.NUM_JOINTS TRAIN.BATCH_SIZE_PER_GPU TRAIN.ACCUMULATE
    TEST.BATCH_SIZE_PER_GPU TEST.INTERVAL DATASET.MAX_PIXELS"""
_POSITIVE = "MODEL.SIGMA TRAIN.LR TRAIN.LR_FACTOR TRAIN.ADAM_EPS TEST.OKS_THRE"
_SHARES = "DATASET.COLOR DATASET.CUTOUT DATASET.PROB_HALF_BODY TRAIN.LR_FACTOR"

# In this order: a rule may rely on those before it.
RULES: tuple[Rule, ...] = (
    *rules_of(
        _PATHS,
        "be a path: no control characters, names of at most 255 bytes",
        lambda path, cfg: is_valid_path(path),
    ),
    *rules_of(_NOT_NEGATIVE, "be 0 or more", lambda value, cfg: value >= 0),
    *rules_of(_COUNTS, "be 1 or more", lambda value, cfg: value >= 1),
    *rules_of(_POSITIVE, "be greater than 0", lambda value, cfg: value > 0),
    *rules_of(_SHARES, "be at most 1", lambda value, cfg: value <= 1),
    Rule("DATASET.SCALE_FACTOR", "be less than 1", lambda factor, cfg: factor < 1),
    Rule("SEED", "lie between 0 and 2^32 - 1", lambda seed, cfg: 0 <= seed < 2**32),
    Rule(
        "GPUS",
        "be one or more different numbers of devices, from 0 on",
        lambda gpus, cfg: len(gpus) == len(set(gpus)) and min(gpus, default=-1) >= 0,
    ),
    one_of("DATASET.DATA_FORMAT", "jpg", "zip"),
    # The network's input and output
    one_of("MODEL.TARGET_TYPE", "gaussian"),
    *rules_of(
        "MODEL.IMAGE_SIZE MODEL.HEATMAP_SIZE",
        "be [width, height], both 2 or more",
        lambda size, cfg: is_size(size, smallest=2),
    ),
    Rule(
        "MODEL.HEATMAP_SIZE",
        "have the aspect ratio of MODEL.IMAGE_SIZE {cfg.MODEL.IMAGE_SIZE}, such as a quarter of it",
        lambda size, cfg: (  # but for a rounding to cells
            abs(size[0] * cfg.MODEL.IMAGE_SIZE[1] - size[1] * cfg.MODEL.IMAGE_SIZE[0])
            < max(cfg.MODEL.IMAGE_SIZE)
        ),
    ),
    Rule("MODEL.EXTRA", "name PRETRAINED_LAYERS in a list", _has_layer_names),
    # Training
    Rule(
        "LOSS.TOPK",
        "lie between 1 and MODEL.NUM_JOINTS {cfg.MODEL.NUM_JOINTS}",
        lambda topk, cfg: not cfg.LOSS.USE_OHKM or 1 <= topk <= cfg.MODEL.NUM_JOINTS,
    ),
    one_of("TRAIN.PRECISION", *PRECISIONS),
    one_of("TRAIN.BATCH_NORM", "own", "sync", "frozen"),
    one_of("TRAIN.OPTIMIZER", "adam", "adamw", "sgd"),
    one_of("TRAIN.LR_SCHEDULER", "MultiStepLR", "CosineAnnealingLR"),
    *rules_of("TRAIN.EMA_DECAY TRAIN.MOMENTUM", "lie in [0, 1)", lambda value, cfg: 0 <= value < 1),
    Rule(
        "TRAIN.LR_STEP",
        "be strictly increasing, from 1 on",
        lambda steps, cfg: is_increasing(steps, first=1),
    ),
    Rule(
        "TRAIN.NESTEROV",
        "be false if sgd has no TRAIN.MOMENTUM",
        lambda on, cfg: not on or cfg.TRAIN.OPTIMIZER != "sgd" or cfg.TRAIN.MOMENTUM > 0,
    ),
    Rule(
        "TRAIN.END_EPOCH",
        "be greater than TRAIN.BEGIN_EPOCH {cfg.TRAIN.BEGIN_EPOCH}",
        lambda end, cfg: end > cfg.TRAIN.BEGIN_EPOCH,
    ),
    # Testing
    one_of("TEST.RUNTIME", *RUNTIMES),
    one_of("TEST.PRECISION", *PRECISIONS),
    Rule(
        "TEST.PRECISION",
        "be fp32 if TEST.RUNTIME is onnx, fp32 or bf16 if it is openvino",
        lambda precision, cfg: precision in RUNTIMES[cfg.TEST.RUNTIME],
    ),
    one_of("TEST.REFINEMENT", "dark", "quarter"),
    Rule(
        "TEST.COCO_BBOX_FILE",
        "name a file of detected boxes, or TEST.USE_GT_BBOX be true",
        lambda file, cfg: file or cfg.TEST.USE_GT_BBOX or cfg.DATASET.DATASET != "coco",
    ),
    Rule("TEST.BLUR_KERNEL", "be odd, from 1 to 999", lambda k, cfg: 1 <= k <= 999 and k % 2 == 1),
)


IGNORED_KEYS: tuple[Ignored, ...] = (
    *ignored_unless("TRAIN.CHECKPOINT", "TRAIN.RESUME", True),
    Ignored("TRAIN.ADAM_EPS", "sgd has none", lambda cfg: cfg.TRAIN.OPTIMIZER == "sgd"),
    Ignored("GPUS", "only the first is used; run torchrun for more", lambda cfg: len(cfg.GPUS) > 1),
    Ignored("RANK", "torchrun sets it"),
    Ignored("MODEL.TAG_PER_JOINT", "for bottom-up networks only"),
    *ignored_unless("LOSS.USE_OUTSIDE_JOINTS", "LOSS.USE_TARGET_WEIGHT", True),
    *ignored_unless("LOSS.TOPK", "LOSS.USE_OHKM", True),
    Ignored("DATASET.HYBRID_JOINTS_TYPE", "older codebases named folders after it"),
    Ignored("DATASET.SELECT_DATA", "all people are used"),
    *ignored_of("TRAIN.GAMMA1 TRAIN.GAMMA2", "no optimizer uses it"),
    Ignored("TRAIN.WD", "adam has no weight decay here", lambda cfg: cfg.TRAIN.OPTIMIZER == "adam"),
    *ignored_unless("TRAIN.MOMENTUM TRAIN.NESTEROV", "TRAIN.OPTIMIZER", "sgd"),
    *ignored_unless("TRAIN.LR_STEP TRAIN.LR_FACTOR", "TRAIN.LR_SCHEDULER", "MultiStepLR"),
    *ignored_unless("TRAIN.LR_END", "TRAIN.LR_SCHEDULER", "CosineAnnealingLR"),
    Ignored("TEST.SHIFT_HEATMAP", "unbiased crops need none", lambda cfg: cfg.DATASET.UNBIASED),
    Ignored(
        "TEST.BLUR_KERNEL",
        "only TEST.POST_PROCESS with TEST.REFINEMENT dark blurs",
        lambda cfg: not cfg.TEST.POST_PROCESS or cfg.TEST.REFINEMENT != "dark",
    ),
    *ignored_of("TEST.NMS_THRE TEST.BBOX_THRE", "boxes are not suppressed, as in HRNet's code"),
    *ignored_unless("TEST.COCO_BBOX_FILE TEST.IMAGE_THRE", "TEST.USE_GT_BBOX", False),
    *ignored_of(
        """TEST.USE_GT_BBOX TEST.IMAGE_THRE TEST.SOFT_NMS TEST.OKS_THRE TEST.IN_VIS_THRE
        TEST.COCO_BBOX_FILE""",
        "only COCO's metric uses it",
        lambda cfg: cfg.DATASET.DATASET != "coco",
    ),
)
