"""What runs from a file: a checkpoint, or a network that `tools/export.py` wrote.

Exported files carry what they are made of as key and value. A file can be hostile: it is looked at
before any runtime sees it, and its answers are checked.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.config.check import value_of
from lib.core.inference import Runner
from lib.core.runtime import Onnx, OpenVino, blank, build_runner, check_precision
from lib.core.tracing import HEATMAPS, IMAGES, import_openvino
from lib.models import build_model
from lib.utils.checkpoint import load_weights
from lib.utils.errors import UserError
from lib.utils.text import brief

log = logging.getLogger(__name__)

FORMAT = "1"  # of exported files, so that later readers can tell
SECTION = "tokenpose"  # of an OpenVINO file, where it keeps keys and values

# The runtimes of an exported file, by its ending; the first also where TEST.RUNTIME says `eager`.
_RUNTIMES = {".onnx": ("onnx", "openvino"), ".xml": ("openvino",)}
# What shapes the network in the file and must not be another in the configuration.
_KEYS = (
    "MODEL.NAME", "MODEL.NUM_JOINTS", "MODEL.IMAGE_SIZE", "MODEL.HEATMAP_SIZE", "MODEL.PATCH_SIZE",
    "MODEL.DIM", "MODEL.TRANSFORMER_DEPTH", "MODEL.TRANSFORMER_HEADS",
    "MODEL.TRANSFORMER_MLP_RATIO", "MODEL.POS_EMBEDDING_TYPE", "MODEL.SPARSITY.PRUNE",
    "MODEL.SPARSITY.JOINT_DEPTH", "MODEL.SPARSITY.JOINT_HOPS", "DATASET.COLOR_RGB",
)  # fmt: skip
_PRUNE_KEYS = ("MODEL.SPARSITY.PRUNE_LAYERS", "MODEL.SPARSITY.KEEP_RATIO")


def load_runner(cfg: CfgNode, file: str | Path, device: torch.device) -> Runner:
    """Make the network in a file run as the TEST keys ask, on crops that are on `device`.

    A file that ends in `.onnx` runs in ONNX Runtime, or in OpenVINO where TEST.RUNTIME says so,
    one in `.xml` in OpenVINO; any other is a checkpoint. UserError where the file cannot be read or
    is not of the network that `cfg` describes.
    """
    if is_exported(file):
        return _load_exported(cfg, Path(file))
    model = build_model(cfg)
    load_weights(model, file)
    model.to(device, memory_format=torch.channels_last)
    test = cfg.TEST
    return build_runner(model, test.RUNTIME, test.PRECISION, tuple(cfg.MODEL.IMAGE_SIZE))


def is_exported(file: str | Path) -> bool:
    """Whether a file is, by its name, an exported network, not a checkpoint."""
    return Path(file).suffix in _RUNTIMES


def settings(cfg: CfgNode) -> dict[str, str]:
    """What of the configuration makes an exported network what it is: key -> value, as JSON."""
    keys = _KEYS if cfg.MODEL.SPARSITY.PRUNE == "none" else (*_KEYS, *_PRUNE_KEYS)
    return {key: json.dumps(value_of(cfg, key)) for key in keys}


def read_onnx(path: str | Path) -> Any:
    """Read an `.onnx` file as an `onnx.ModelProto`.

    UserError where there is none, or where it points to other files, which could lie anywhere.
    """
    import onnx  # here, as few commands need it

    data = _bytes(path)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's errors have no common class
        raise UserError(f"{path} is not an ONNX file, or it is damaged ({_line(error)})") from None
    for tensor in _parts(model, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UserError(f"{path} keeps weights in other files, which are not read: export anew")
    marks = {entry.key: entry.value for entry in model.metadata_props}
    if marks.get("sha256", digest(model)) != digest(model):
        raise UserError(f"{path} is damaged: its checksum is wrong")
    return model


def digest(model: Any) -> str:
    """SHA-256 of all that an `onnx.ModelProto` computes; runtimes notice no flipped bit."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def read_openvino(path: str | Path) -> Any:
    """Read an `.xml` file and the `.bin` file beside it as an `openvino.Model`, or UserError."""
    for part in (Path(path), Path(path).with_suffix(".bin")):
        _bytes(part, most=1)
    try:
        return import_openvino().Core().read_model(str(path))
    except RuntimeError as error:
        raise UserError(f"{path} is not OpenVINO's, or it is damaged ({_line(error)})") from None


class _Guarded:
    """A runner of a file that is not trusted: what goes wrong in it becomes one line."""

    def __init__(self, path: Path, run: Runner, shape: Sequence[int]) -> None:
        self._path, self._run, self._shape = path, run, tuple(shape)

    def __call__(self, images: Tensor) -> Tensor:
        """Crops -> heatmaps [B, *shape]."""
        try:
            found = self._run(images)
        except Exception as error:  # the runtimes' errors have no common class
            raise UserError(f"{self._path} does not run here ({_line(error)})") from None
        if found.shape != (len(images), *self._shape) or found.dtype != torch.float32:
            raise UserError(
                f"{self._path} gives {found.dtype} {list(found.shape)}, not the heatmaps "
                f"{[len(images), *self._shape]} of this configuration"
            )
        return found


def _load_exported(cfg: CfgNode, path: Path) -> Runner:
    kind, asked, precision = path.suffix, cfg.TEST.RUNTIME, cfg.TEST.PRECISION
    runtime = _RUNTIMES[kind][0] if asked == "eager" else asked
    if runtime not in _RUNTIMES[kind]:
        raise UserError(f"TEST.RUNTIME: {asked} does not run {path}; leave the key out")
    check_precision(runtime, precision)
    width, height = cfg.MODEL.HEATMAP_SIZE
    shape = (cfg.MODEL.NUM_JOINTS, height, width)
    model = read_onnx(path) if kind == ".onnx" else read_openvino(path)
    _check(cfg, path, *(_onnx_facts(model) if kind == ".onnx" else _openvino_facts(model)))
    try:
        if runtime == "onnx":
            run: Runner = Onnx(model.SerializeToString())
        else:
            if kind == ".onnx":
                model = import_openvino().Core().read_model(model.SerializeToString())
            run = OpenVino(model, precision)
    except Exception as error:
        raise UserError(f"{path} does not run here ({_line(error)})") from None
    run = _Guarded(path, run, shape)
    run(blank(cfg.MODEL.IMAGE_SIZE))
    log.info("loaded %s, which runs on %s, in %s", path, runtime, precision)
    return run


def _check(
    cfg: CfgNode, path: Path, facts: Mapping[str, str], inputs: list[str], outputs: list[str]
) -> None:
    """Raise UserError where a file is not of the network that the configuration describes."""
    if "format" not in facts:
        raise UserError(f"{path} was not written by tools/export.py")
    if facts["format"] != FORMAT:
        raise UserError(f"{path} is of format {brief(facts['format'])}, only {FORMAT} is known")
    for key, value in settings(cfg).items():
        if facts.get(key) != value:
            raise UserError(
                f"{path} was exported with {key} {brief(facts.get(key, 'missing'))}, here it is "
                f"{value}: use the configuration that it was exported with"
            )
    if inputs != [IMAGES] or outputs != [HEATMAPS]:
        raise UserError(
            f"{path} takes {brief(', '.join(inputs))} and gives {brief(', '.join(outputs))}, not "
            f"{IMAGES} and {HEATMAPS}: export without --decode"
        )


def _onnx_facts(model: Any) -> tuple[dict[str, str], list[str], list[str]]:
    """Keys and values, names of inputs, names of outputs."""
    graph = model.graph
    facts = {entry.key: entry.value for entry in model.metadata_props}
    return facts, [value.name for value in graph.input], [value.name for value in graph.output]


def _openvino_facts(model: Any) -> tuple[dict[str, str], list[str], list[str]]:
    facts = {}
    if model.has_rt_info(SECTION):
        facts = {key: str(value) for key, value in model.get_rt_info(SECTION).value.items()}
    names = [sorted(port.names)[:1] for port in (*model.inputs, *model.outputs)]
    names = ["".join(name) for name in names]
    return facts, names[: len(model.inputs)], names[len(model.inputs) :]


def _parts(message: Any, kind: type) -> Iterator[Any]:
    """Every message of a kind inside a protobuf message, at any depth."""
    if isinstance(message, kind):
        yield message
    for _, value in message.ListFields():
        for part in value if isinstance(value, Sequence) or hasattr(value, "add") else (value,):
            if hasattr(part, "ListFields"):
                yield from _parts(part, kind)
            else:
                break  # numbers or texts


def _bytes(path: str | Path, most: int = -1) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise UserError(f"there is no model file {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _line(error: Exception) -> str:
    """What an error says, of several lines the last: OpenVINO begins with where it was."""
    return brief(str(error).strip().rpartition("\n")[2] or type(error).__name__)
