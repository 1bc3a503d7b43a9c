"""Reading, merging and checking configurations."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yacs.config import CfgNode

from lib.config import get_cfg, load_cfg
from lib.config.check import check, config_error, ignored_keys, value_of
from lib.config.load import _SYNONYMS
from lib.dataset import build_skeleton, dataset_spec
from lib.models import check_model, model_spec
from lib.utils.errors import UserError

# As the published files of HRNet and TokenPose: texts for tuples, whole numbers for floats, -1.0.
PUBLISHED = """
AUTO_RESUME: true
GPUS: (0,1)
DATA_DIR: ''
PRINT_FREQ: 50
CUDNN: {BENCHMARK: true, DETERMINISTIC: false, ENABLED: true}
DATASET:
  DATASET: 'mpii'
  SKELETON: 'coco'
  DATA_FORMAT: jpg
  ROOT: 'data/mpii/'
  PROB_HALF_BODY: -1.0
  ROT_FACTOR: 45
MODEL:
  NAME: pose_tokenpose_s
  NUM_JOINTS: 17
  DIM: 192
  PATCH_SIZE:
  - 3
  - 4
  IMAGE_SIZE: [192, 256]
  HEATMAP_SIZE: [48, 64]
  TRANSFORMER_MLP_RATIO: 3
  SIGMA: 2
  EXTRA:
    PRETRAINED_LAYERS: ['conv1', 'bn1']
    FINAL_CONV_KERNEL: 1
    STAGE2:
      NUM_CHANNELS: [32, 64]
      FUSE_METHOD: SUM
LOSS: {USE_TARGET_WEIGHT: true, USE_DIFFERENT_JOINTS_WEIGHT: false}
TRAIN: {LR: 1e-3, LR_STEP: [10, 20], GAMMA1: 0.98, WD: 0.1}
TEST: {SHIFT_HEATMAP: true, COCO_BBOX_FILE: boxes.json}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a YAML file and return its path."""

    def write(text: str | bytes, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def load(path: Path, opts: Any = ()) -> CfgNode:
    """Load and check a configuration, as every command does."""
    cfg = check_model(load_cfg(path, opts))
    dataset_spec(cfg)
    build_skeleton(cfg)
    return cfg


def error_of(path: Path, *opts: Any) -> str:
    """The error of a configuration, one line."""
    with pytest.raises(UserError) as caught:
        load(path, opts)
    message = str(caught.value)
    assert message.isprintable()  # no line breaks or control characters
    return message


def leaves(cfg: CfgNode, section: str = "") -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name, value in cfg.items():
        key = section + name
        keys |= leaves(value, key + ".") if isinstance(value, CfgNode) else {key: value}
    return keys


def ignored(cfg: CfgNode) -> set[str]:
    return set(ignored_keys(cfg, model_spec(cfg).ignored))


def test_defaults_are_valid_and_none_is_ignored() -> None:
    check(check_model(get_cfg()))
    assert not ignored(get_cfg())


def test_defaults_are_copies() -> None:
    first = get_cfg()
    first.MODEL.PATCH_SIZE.append(1)
    first.TRAIN.LR = 1.0
    assert get_cfg() != first


def test_published_file(write: Callable[..., Path]) -> None:
    cfg = load_cfg(write(PUBLISHED))
    assert cfg.GPUS == (0, 1)
    assert (cfg.TRAIN.LR, type(cfg.TRAIN.LR)) == (0.001, float)
    assert type(cfg.MODEL.SIGMA) is type(cfg.MODEL.TRANSFORMER_MLP_RATIO) is float
    assert cfg.DATASET.PROB_HALF_BODY == -1
    assert cfg.MODEL.PATCH_SIZE == [3, 4]
    assert cfg.MODEL.EXTRA.STAGE2.NUM_CHANNELS == [32, 64]
    assert cfg.MODEL.SPARSITY == get_cfg().MODEL.SPARSITY
    assert yaml.safe_load(cfg.dump())["MODEL"]["EXTRA"]["STAGE2"]["FUSE_METHOD"] == "SUM"


def test_types_stay_those_of_the_defaults(write: Callable[..., Path]) -> None:
    before = leaves(get_cfg())
    after = leaves(load_cfg(write(PUBLISHED), ["TRAIN.LR", "1", "WORKERS", "0", "GPUS", "2"]))
    assert {key: type(after[key]) for key in before} == {k: type(v) for k, v in before.items()}


def test_copies_keep_the_origin_of_each_value(write: Callable[..., Path]) -> None:
    path = write(PUBLISHED)
    cfg = load_cfg(path, ["TRAIN.LR", "0.5"])
    for copy in (cfg, cfg.clone(), pickle.loads(pickle.dumps(cfg))):  # noqa: S301
        assert copy == cfg
        assert str(config_error(copy, "TRAIN.LR", "x")) == "command line: TRAIN.LR = 0.5: x"
        assert str(config_error(copy, "MODEL.DIM", "x")) == f"{path}: MODEL.DIM = 192: x"
        assert str(config_error(copy, "TEST.FLIP_TEST", "x")).startswith(f"{path} (default): ")


def test_saved_configuration_loads_unchanged(write: Callable[..., Path]) -> None:
    cfg = load_cfg(write(PUBLISHED))
    saved = cfg.clone()
    saved.defrost()
    saved.GPUS = list(cfg.GPUS)  # YAML has no tuples
    assert load_cfg(write(saved.dump(), "saved.yaml")) == cfg


def test_frozen(write: Callable[..., Path]) -> None:
    cfg = load_cfg(write(PUBLISHED))
    for node in (cfg, cfg.MODEL, cfg.MODEL.SPARSITY, cfg.MODEL.EXTRA, cfg.MODEL.EXTRA.STAGE2):
        with pytest.raises(AttributeError):
            node.NEW = 1


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("TRAIN.LR", "1", 1.0),
        ("TRAIN.LR", "1e-3", 0.001),
        ("TRAIN.LR", 2, 2.0),
        ("GPUS", "(0,1,2,3)", (0, 1, 2, 3)),
        ("GPUS", "[1]", (1,)),
        ("GPUS", "3", (3,)),
        ("TRAIN.LR_STEP", "(1, 2)", [1, 2]),
        ("TRAIN.LR_STEP", "1,2", [1, 2]),
        ("MODEL.SPARSITY.PRUNE_LAYERS", "[]", []),
        ("TEST.FLIP_TEST", "false", False),
        ("TEST.FLIP_TEST", "True", True),
        ("DATASET.TRAIN_SET", "2017", "2017"),
        ("MODEL.PRETRAINED", "", ""),
        ("MODEL.EXTRA.STAGE2.NUM_CHANNELS", "[4, 8]", [4, 8]),
        ("MODEL.EXTRA.A.B", "a text", "a text"),
        ("MODEL.EXTRA.STAGE2.NEW", "1", 1),
    ],
)
def test_command_line(write: Callable[..., Path], key: str, text: Any, value: Any) -> None:
    result = value_of(load_cfg(write(PUBLISHED), [key, text]), key)
    assert (result, type(result)) == (value, type(value))


def test_command_line_comes_last(write: Callable[..., Path]) -> None:
    cfg = load_cfg(write(PUBLISHED), ["TRAIN.LR", "0.5", "WORKERS", "1", "TRAIN.LR", "0.25"])
    assert (cfg.TRAIN.LR, cfg.WORKERS, cfg.MODEL.DIM) == (0.25, 1, 192)


WRONG_TYPE = [
    ("WORKERS", True), ("WORKERS", 4.0), ("WORKERS", "many"), ("WORKERS", None), ("WORKERS", 2**70),
    ("TRAIN.LR", False), ("TRAIN.LR", "fast"), ("TRAIN.LR", "nan"),
    ("TRAIN.LR", float("nan")), ("TRAIN.LR", float("inf")), ("TRAIN.LR", "1e999"),
    ("TRAIN.LR", 10**400), ("TRAIN.WD", 1e39), ("TRAIN.LR", [0.1]), ("TRAIN.LR", {"A": 1}),
    ("TEST.FLIP_TEST", 1),
    ("TEST.FLIP_TEST", "yes"), ("MODEL.NAME", 5), ("MODEL.NAME", None), ("MODEL.NAME", ["a"]),
    ("MODEL.SPARSITY.PRUNE", False), ("MODEL.IMAGE_SIZE", 256), ("MODEL.IMAGE_SIZE", [256, 256.0]),
    ("MODEL.IMAGE_SIZE", [256, True]), ("MODEL.IMAGE_SIZE", ["256", 256]), ("GPUS", "all"),
    ("GPUS", [0, None]), ("MODEL", 3), ("MODEL", None), ("MODEL.EXTRA", "x"),
    ("MODEL.EXTRA.A", {1: 2}), ("MODEL.EXTRA.A", [{3}]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG_TYPE)
def test_wrong_type(write: Callable[..., Path], key: str, value: Any) -> None:
    message = error_of(write(PUBLISHED), key, value)
    assert message.startswith(f"command line: {key} = ")
    assert "expected" in message or "is a section" in message


IMPOSSIBLE = [
    ("OUTPUT_DIR", "a\0b"), ("LOG_DIR", "a\nb"), ("DATA_DIR", "\ud800"),
    ("DATASET.ROOT", "\x1b[2J"), ("MODEL.PRETRAINED", "a/" + 256 * "b"),
    ("DATASET.TRAIN_SET", 300 * "ü"), ("DATASET.TEST_SET", "\u2028"),
    ("TRAIN.CHECKPOINT", "\x7f"), ("TEST.MODEL_FILE", "\x85"),
    ("MODEL.TRANSFORMER_MLP_RATIO", 0.001), ("TRAIN.LR_FACTOR", 1.1), ("TEST.BLUR_KERNEL", 1001),
    ("DATASET.COLOR", -0.1), ("DATASET.COLOR", 1.1), ("DATASET.CUTOUT", 2),
    ("MODEL.DROP_PATH", 1), ("MODEL.DROP_PATH", -0.1),
    ("TRAIN.CLIP_GRAD", -1), ("TRAIN.SKIP_NOT_FINITE", -1), ("TRAIN.CHECKPOINT_STEPS", -1),
    ("TRAIN.CHECKPOINT_MINUTES", -0.5), ("DATASET.SKIP_BAD_IMAGES", -1), ("TRAIN.ACCUMULATE", 0),
    ("TRAIN.BATCH_NORM", "Sync"), ("TRAIN.EMA_DECAY", 1), ("TRAIN.EMA_DECAY", -0.1),
    ("TRAIN.PRECISION", "fp8"), ("TEST.PRECISION", "half"), ("TRAIN.ADAM_EPS", 0),
    ("TEST.RUNTIME", "tensorrt"), ("MODEL.HEATMAP_SIZE", [1, 64]),
    ("GPUS", "[]"), ("GPUS", "[-1]"), ("GPUS", "[0, 0]"), ("WORKERS", -1), ("PRINT_FREQ", 0),
    ("SEED", -1), ("MODEL.NUM_JOINTS", 0), ("MODEL.TARGET_TYPE", "offset"),
    ("MODEL.IMAGE_SIZE", [192]), ("MODEL.IMAGE_SIZE", [194, 256]), ("MODEL.IMAGE_SIZE", [0, 256]),
    ("MODEL.HEATMAP_SIZE", [0, 64]), ("MODEL.SIGMA", 0), ("MODEL.DIM", 0), ("MODEL.DIM", 196),
    ("MODEL.PATCH_SIZE", [3, 5]), ("MODEL.PATCH_SIZE", [5, 4]), ("MODEL.PATCH_SIZE", [0, 4]),
    ("MODEL.TRANSFORMER_DEPTH", 0), ("MODEL.TRANSFORMER_HEADS", 0),
    ("MODEL.TRANSFORMER_MLP_RATIO", 0), ("MODEL.POS_EMBEDDING_TYPE", "Sine"),
    ("MODEL.HEATMAP_SIZE", [64, 48]), ("MODEL.HEATMAP_SIZE", [64, 64]),
    ("MODEL.HEATMAP_SIZE", [48, 62]), ("MODEL.HEATMAP_SIZE", [192, 254]),
    ("MODEL.HIDDEN_HEATMAP_DIM", 0), ("MODEL.SPARSITY.PRUNE", "tokens"),
    ("MODEL.SPARSITY.PRUNE_LAYERS", [3, 12]), ("MODEL.SPARSITY.PRUNE_LAYERS", [3, 3]),
    ("MODEL.SPARSITY.PRUNE_LAYERS", [6, 3]), ("MODEL.SPARSITY.PRUNE_LAYERS", [-1, 3]),
    ("MODEL.SPARSITY.KEEP_RATIO", 0), ("MODEL.SPARSITY.KEEP_RATIO", 1.01),
    ("MODEL.SPARSITY.JOINT_DEPTH", -1), ("MODEL.SPARSITY.JOINT_HOPS", -2),
    ("DATASET.DATA_FORMAT", "png"), ("DATASET.SCALE_FACTOR", 1), ("DATASET.SCALE_FACTOR", -0.1),
    ("DATASET.ROT_FACTOR", -1), ("DATASET.PROB_HALF_BODY", 1.5),
    ("DATASET.NUM_JOINTS_HALF_BODY", -1), ("TRAIN.LR", 0), ("TRAIN.LR", -0.1),
    ("TRAIN.LR_SCHEDULER", "StepLR"), ("TRAIN.LR_STEP", [20, 10]), ("TRAIN.LR_STEP", [0, 10]),
    ("TRAIN.LR_FACTOR", 0), ("TRAIN.LR_END", -1), ("TRAIN.WARMUP_STEPS", -1),
    ("TRAIN.OPTIMIZER", "lamb"), ("TRAIN.MOMENTUM", 1), ("TRAIN.WD", -1),
    ("TRAIN.BEGIN_EPOCH", -1), ("TRAIN.END_EPOCH", 0), ("TRAIN.BATCH_SIZE_PER_GPU", 0),
    ("TEST.BATCH_SIZE_PER_GPU", 0), ("TEST.BLUR_KERNEL", 10), ("TEST.BLUR_KERNEL", -1),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE)
def test_impossible_value(write: Callable[..., Path], key: str, value: Any) -> None:
    message = error_of(write(PUBLISHED), key, value)
    assert re.match(rf"command line: {key} = .*: must ", message)


@pytest.mark.parametrize("name", ["", "../up", "/etc", ".", "\x1b[2J"])
@pytest.mark.parametrize("key", ["MODEL.NAME", "DATASET.DATASET", "DATASET.SKELETON"])
def test_unknown_name(write: Callable[..., Path], key: str, name: str) -> None:
    if key != "DATASET.SKELETON" or name:  # empty: the one of the data set
        assert error_of(write(PUBLISHED), key, name).startswith(f"command line: {key} = ")


def test_misspelled_name(write: Callable[..., Path]) -> None:
    path = write("MODEL: {NAME: pose_tokenpos_s}")
    message = error_of(path)
    assert message.startswith(f"{path}: MODEL.NAME = 'pose_tokenpos_s': ")
    assert message.endswith("did you mean pose_tokenpose_s?")
    assert error_of(write("DATASET: {DATASET: lsp}")).endswith("did you mean lspet?")


@pytest.mark.parametrize(
    ("opts", "key"),
    [
        (["MODEL.TRANSFORMER_DEPTH", "6"], "MODEL.SPARSITY.PRUNE_LAYERS"),
        (["MODEL.TRANSFORMER_HEADS", "5"], "MODEL.DIM"),
        (["MODEL.TRANSFORMER_HEADS", "1", "MODEL.DIM", "190"], "MODEL.DIM"),
        (["MODEL.IMAGE_SIZE", "[256, 256]", "MODEL.HEATMAP_SIZE", "[64, 64]"], "MODEL.PATCH_SIZE"),
        (["MODEL.IMAGE_SIZE", "[4, 4]", "MODEL.HEATMAP_SIZE", "[2, 2]"], "MODEL.IMAGE_SIZE"),
        (["MODEL.IMAGE_SIZE", "[256, 192]"], "MODEL.HEATMAP_SIZE"),
        (["TRAIN.BEGIN_EPOCH", "300"], "TRAIN.END_EPOCH"),
        (["TEST.RUNTIME", "openvino", "TEST.PRECISION", "fp16"], "TEST.PRECISION"),
        (["TEST.RUNTIME", "onnx", "TEST.PRECISION", "bf16"], "TEST.PRECISION"),
        (["LOSS.USE_OHKM", "true", "LOSS.TOPK", "18"], "LOSS.TOPK"),
        (["TRAIN.OPTIMIZER", "sgd", "TRAIN.MOMENTUM", "0", "TRAIN.NESTEROV", "true"],
         "TRAIN.NESTEROV"),
    ],
)  # fmt: skip
def test_values_that_exclude_each_other(
    write: Callable[..., Path], opts: list[str], key: str
) -> None:
    assert re.search(rf": {key} = .*: must .*", error_of(write(PUBLISHED), *opts))


@pytest.mark.parametrize(
    "opts",
    [
        ["MODEL.TRANSFORMER_DEPTH", "6", "MODEL.SPARSITY.PRUNE", "none"],
        ["MODEL.TRANSFORMER_DEPTH", "6", "MODEL.SPARSITY.PRUNE_LAYERS", "[0, 5]"],
        ["MODEL.DIM", "190", "MODEL.TRANSFORMER_HEADS", "1", "MODEL.POS_EMBEDDING_TYPE", "none"],
        ["MODEL.SPARSITY.KEEP_RATIO", "1", "MODEL.SPARSITY.JOINT_HOPS", "-1"],
        ["LOSS.TOPK", "18"],
        ["TRAIN.LR_STEP", "[]"],
        ["MODEL.IMAGE_SIZE", "[8, 4]", "MODEL.HEATMAP_SIZE", "[4, 2]",
         "MODEL.PATCH_SIZE", "[1, 1]"],
        ["MODEL.HEATMAP_SIZE", "[192, 256]"],
        ["MODEL.HEATMAP_SIZE", "[47, 63]"],  # a rounded size
        ["MODEL.TRANSFORMER_MLP_RATIO", "0.003"],
        ["TRAIN.LR_FACTOR", "1", "TRAIN.WD", "3e38", "TEST.BLUR_KERNEL", "999"],
        ["DATASET.SKELETON", "", "MODEL.NUM_JOINTS", "16"],
        ["DATASET.ROOT", "../人 \u3000/" + 255 * "a", "DATASET.TRAIN_SET", "a/../b"],
    ],
)  # fmt: skip
def test_extreme_values(write: Callable[..., Path], opts: list[str]) -> None:
    assert load(write(PUBLISHED), opts).is_frozen()


def test_heatmaps_of_another_shape_name_both_keys(write: Callable[..., Path]) -> None:
    message = error_of(write(PUBLISHED), "MODEL.HEATMAP_SIZE", [64, 48])
    assert message.startswith("command line: MODEL.HEATMAP_SIZE = [64, 48]: ")
    assert "MODEL.IMAGE_SIZE [192, 256]" in message


def test_the_error_names_the_origin(write: Callable[..., Path]) -> None:
    path = write("TRAIN: {LR: -1}")
    assert error_of(path) == f"{path}: TRAIN.LR = -1.0: must be greater than 0"
    assert error_of(path, "TRAIN.LR", "-2").startswith("command line: TRAIN.LR = -2.0: ")
    path = write("MODEL: {EXTRA: {NUM_LAYERS: 50}}")
    assert error_of(path).startswith(f"{path}: MODEL.EXTRA.NUM_LAYERS = 50: ")
    shallow = write("MODEL: {TRANSFORMER_DEPTH: 6}")
    assert error_of(shallow).startswith(f"{shallow} (default): MODEL.SPARSITY.PRUNE_LAYERS = [3, ")


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("TRAIN: {LEARNING_RATE: 1}", "TRAIN.LEARNING_RATE", "is TRAIN.LR"),
        ("TRAIN: {learningRate: 1}", "TRAIN.learningRate", "is TRAIN.LR"),
        ("TRAIN: {LEARNING-RATE: 1}", "TRAIN.LEARNING-RATE", "is TRAIN.LR"),
        ("LEARNING_RATE: 1", "LEARNING_RATE", "is TRAIN.LR"),
        ("LR: 1", "LR", "is TRAIN.LR"),
        ("TRAIN: {BATCH_SIZE: 1}", "TRAIN.BATCH_SIZE", "is TRAIN.BATCH_SIZE_PER_GPU"),
        ("TEST: {BATCH_SIZE: 1}", "TEST.BATCH_SIZE", "is TEST.BATCH_SIZE_PER_GPU"),
        ("TRAIN: {EPOCHS: 1}", "TRAIN.EPOCHS", "is TRAIN.END_EPOCH"),
        ("TRAIN: {WEIGHT_DECAY: 1}", "TRAIN.WEIGHT_DECAY", "is TRAIN.WD"),
        ("NUM_WORKERS: 1", "NUM_WORKERS", "is WORKERS"),
        ("TRAIN: {MIN_LR: 1}", "TRAIN.MIN_LR", "is TRAIN.LR_END"),
        ("MODEL: {NUM_HEADS: 1}", "MODEL.NUM_HEADS", "is MODEL.TRANSFORMER_HEADS"),
        ("DATASET: {VAL_SET: a}", "DATASET.VAL_SET", "is DATASET.TEST_SET"),
        ("MODEL: {INPUT_SIZE: 1}", "MODEL.INPUT_SIZE", "is MODEL.IMAGE_SIZE"),
        ("TRAIN: {LRR: 1}", "TRAIN.LRR", "TRAIN.LR"),
        ("TRAIN: {lr: 1}", "TRAIN.lr", "TRAIN.LR"),
        ("TRIAN: {LR: 1, WD: 1}", "TRIAN", "TRAIN"),
        ("SPARSITY: {KEEP_RATIO: 1}", "SPARSITY.KEEP_RATIO", "MODEL.SPARSITY.KEEP_RATIO"),
        ("MODEL: {SPARSITY: {KEEP: 1}}", "MODEL.SPARSITY.KEEP", "MODEL.SPARSITY.KEEP_RATIO"),
        ("TRAIN.LR: 1", "TRAIN.LR", "a level per section"),
        ("1: 1", "1", "nearest"),
        ("on: 1", "True", "nearest"),
        ('"A\\nB": 1', "A B", "nearest"),
    ],
)
def test_unknown_key(write: Callable[..., Path], text: str, key: str, nearest: str) -> None:
    path = write(text)
    message = error_of(path)
    assert message.startswith(f"{path}: {key} = ")
    assert nearest in message
    assert not nearest.startswith("is ") or message.endswith(nearest)


def test_unknown_key_on_the_command_line(write: Callable[..., Path]) -> None:
    message = error_of(write(PUBLISHED), "MODEL.SPARSITY.KEEP", "0.5")
    assert message == (
        "command line: MODEL.SPARSITY.KEEP = '0.5': there is no such key;"
        " the nearest is MODEL.SPARSITY.KEEP_RATIO"
    )
    for key in ("", ".", "MODEL.", "MODEL..DIM", "TRAIN.LR.X", "MODEL.IMAGE_SIZE.0"):
        assert error_of(write(PUBLISHED), key, "1").startswith("command line: ")
    assert "TRAIN.LR has no value" in error_of(write(PUBLISHED), "WORKERS", "1", "TRAIN.LR")


HOSTILE = {
    "empty": b"",
    "comment": b"# nothing\n",
    "list": b"- 1\n- 2\n",
    "text": b"hello",
    "two documents": b"WORKERS: 1\n---\nWORKERS: 2\n",
    "open bracket": b"GPUS: [0",
    "tab": b"TRAIN:\n\tLR: 1\n",
    "not text": b"\xff\xfe\xfa\x00",
    "not UTF-8": b"DATA_DIR: \xff\n",
    "duplicate": b"WORKERS: 1\nWORKERS: 2\n",
    "deep duplicate": b"TRAIN:\n  LR: 1\n  LR: 2\n",
    "python object": b"DATA_DIR: !!python/object/apply:os.system ['true']\n",
    "python tuple": b"GPUS: !!python/tuple [0]\n",
    "bad bool": b"PIN_MEMORY: !!bool perhaps\n",
    "bad number": b"WORKERS: !!int ''\n",
    "bad date": b"DATA_DIR: 2001-99-99\n",
    "odd date": b"DATA_DIR: !!timestamp tomorrow\n",
    "list as key": b"[1]: 2\n",
    "long number": b"WORKERS: " + b"9" * 5000,
    "deep": b"MODEL: {EXTRA: {A: " + b"[" * 3000 + b"]" * 3000 + b"}}",
    "long key": b"? " + b"x" * 3000 + b"\n: 1\n",
    "long key twice": (b"? " + b"x" * 3000 + b"\n: 1\n") * 2,
    "long tag": b"DATA_DIR: !" + b"x" * 3000 + b" a\n",
    "escape in a key": b'"\\e[2J": 1\n',
    "escape in a key twice": b'"\\e[2J": 1\n"\\e[2J": 1\n',
    "surrogate in a key": b'"\\ud800": 1\n',
    "laughs": b"MODEL: {EXTRA: {A: &a [1, 1], B: &b [*a, *a], C: [*b, *b]}}",
    "date in EXTRA": b"MODEL: {EXTRA: {A: 2001-01-01}}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_file(write: Callable[..., Path], text: bytes) -> None:
    path = write(text)
    message = error_of(path)
    assert message.startswith(f"{path}: ")
    assert len(message) < len(str(path)) + 400


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        assert error_of(path).startswith(f"{path}: cannot be read: ")


def test_base(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write("WORKERS: 1\nPRINT_FREQ: 1\nTRAIN: {LR: 1, WD: 1}\nMODEL: {EXTRA: {A: {B: 1, C: 1}}}")
    write("BASE: ../run.yaml\nPRINT_FREQ: 2\nTRAIN: {LR: 2}\n", "deep/middle.yaml")
    path = write("BASE: deep/middle.yaml\nTRAIN: {LR: 3}\nMODEL: {EXTRA: {A: {B: 2}}}", "top.yaml")
    cfg = load_cfg(path)
    assert (cfg.WORKERS, cfg.PRINT_FREQ, cfg.TRAIN.LR, cfg.TRAIN.WD) == (1, 2, 3, 1)
    assert dict(cfg.MODEL.EXTRA.A) == {"B": 2, "C": 1}
    assert "BASE" not in cfg


def test_an_error_in_a_base_names_the_base(write: Callable[..., Path], tmp_path: Path) -> None:
    base = write("TRAIN: {LR: -1}", "base.yaml")
    assert error_of(write("BASE: base.yaml")).startswith(f"{base}: TRAIN.LR = ")


@pytest.mark.parametrize(
    "base", ["none.yaml", "run.yaml", "./run.yaml", "other.yaml", "''", "3", "[a]", ".", "a" * 999]
)
def test_bad_base(write: Callable[..., Path], base: str) -> None:
    write("BASE: run.yaml", "other.yaml")
    assert ": BASE = " in error_of(write(f"BASE: {base}"))


def test_ignored_keys(write: Callable[..., Path]) -> None:
    assert ignored(load_cfg(write(PUBLISHED))) == {
        "GPUS", "TRAIN.GAMMA1", "TRAIN.WD", "TEST.SHIFT_HEATMAP", "TEST.COCO_BBOX_FILE",
    }  # fmt: skip
    opts = ["TRAIN.OPTIMIZER", "adamw", "GPUS", "1", "MODEL.BASE_CHANNEL", "48"]
    expected = {"TRAIN.GAMMA1", "TEST.SHIFT_HEATMAP", "TEST.COCO_BBOX_FILE", "MODEL.BASE_CHANNEL"}
    assert ignored(load_cfg(write(PUBLISHED), opts)) == expected


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.lists(st.integers(-1, 300), max_size=3), st.dictionaries(st.text(max_size=3), st.integers()),
    st.sampled_from(["none", "token", "sgd", "1e-4", "(0, 1)", "[64, 64]", "true", "[" * 99]),
)  # fmt: skip


def error_or_empty(path: Path) -> str:
    """The error of a file, one line; "" if it is valid."""
    try:
        load(path)
    except UserError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        return message
    return ""


@settings(
    max_examples=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=st.dictionaries(st.sampled_from(sorted(leaves(get_cfg()))), ANYTHING, max_size=3))
def test_changed_file_is_valid_or_one_line(
    write: Callable[..., Path], changes: dict[str, Any]
) -> None:
    values = yaml.safe_load(PUBLISHED)
    for key, value in changes.items():
        *sections, name = key.split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    path = write(yaml.safe_dump(values))
    message = error_or_empty(path)
    if message:
        keys = [*leaves(get_cfg()), "MODEL.EXTRA"]
        assert any(
            message.startswith((f"{path}: {key}", f"{path} (default): {key}")) for key in keys
        )


@settings(max_examples=50, derandomize=True, deadline=None)
@given(data=st.data())
def test_damaged_file_is_valid_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = bytearray(PUBLISHED.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(text)
    error_or_empty(path)


def test_names_of_other_codebases_lead_to_keys_that_exist() -> None:
    """And none of them is the name of a key here."""
    names = {key.rpartition(".")[2] for key in leaves(get_cfg())}
    assert names >= set(_SYNONYMS.values())
    assert not _SYNONYMS.keys() & {name.replace("_", "") for name in names}


def test_the_home_folder_is_found_in_every_path(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = """OUTPUT_DIR LOG_DIR DATA_DIR MODEL.PRETRAINED DATASET.ROOT TRAIN.CHECKPOINT
        TEST.MODEL_FILE TEST.COCO_BBOX_FILE"""
    (tmp_path / "base.yaml").write_text("LOG_DIR: ~/log")
    cfg = load_cfg(write("BASE: ~/base.yaml\nOUTPUT_DIR: '~'"))
    assert (f"{tmp_path}/log", str(tmp_path)) == (cfg.LOG_DIR, cfg.OUTPUT_DIR)
    for key in paths.split():
        cfg = load_cfg(write("SEED: 1"), [key, "~/a~/~"])
        assert value_of(cfg, key) == f"{tmp_path}/a~/~"
