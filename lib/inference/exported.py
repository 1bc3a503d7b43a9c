"""Exported files are not trusted: they may be damaged or hostile, or hold another network."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.config.check import value_of
from lib.dataset import build_skeleton
from lib.inference.pipeline import Runner
from lib.inference.tracing import Outputs, heatmaps_of, import_openvino, run_onnx, run_openvino
from lib.models import model_spec
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import seal
from lib.utils.text import shorten

log = logging.getLogger(__name__)

SECTION = "pose_network"  # of an OpenVINO file, which holds the metadata
INT8_KEY = "int8"  # in the metadata of a quantised file: how well it does
# Every exported network must agree in these; `ModelSpec.export_keys` has more.
_KEYS = (
    "MODEL.NAME", "MODEL.NUM_JOINTS", "MODEL.IMAGE_SIZE", "MODEL.HEATMAP_SIZE",
    "DATASET.COLOR_RGB", "DATASET.UNBIASED",
)  # fmt: skip


def settings(cfg: CfgNode) -> dict[str, str]:
    """Return the metadata in which a file and the configuration must agree."""
    keys = (*_KEYS, *model_spec(cfg).export_keys(cfg))
    values = {key: json.dumps(value_of(cfg, key)) for key in keys}
    return {"format": "3", "skeleton": build_skeleton(cfg).identity, **values}


def load_exported(cfg: CfgNode, path: Path) -> Runner:
    """Return a runner of a file, on the CPU; UserError if it is not of the network in `cfg`."""
    runtime, test = "onnx" if path.suffix == ".onnx" else "openvino", cfg.TEST
    if test.RUNTIME not in ("eager", runtime):
        raise UserError(f"TEST.RUNTIME = {test.RUNTIME}: {path} runs in {runtime}; omit the key")
    metadata, outputs = open_exported(path, test.PRECISION)
    for key, value in settings(cfg).items():
        # A file that is older than a key has its default.
        default = json.dumps(value_of(get_cfg(), key)) if "." in key else "missing"
        if (found := metadata.get(key, default)) != value:
            other = f"{path} has {key} {shorten(found)}, not {shorten(value)}"
            raise UserError(f"{other}: run tools/export.py with this configuration")
    images = torch.zeros(2, *reversed(cfg.MODEL.IMAGE_SIZE), 3, dtype=torch.uint8)
    with as_user_error(f"{path} does not run here"):
        heatmaps = outputs(images)[0]
    expected = (2, cfg.MODEL.NUM_JOINTS, *reversed(cfg.MODEL.HEATMAP_SIZE))
    if heatmaps.shape != expected or heatmaps.dtype != torch.float32:
        given = f"{heatmaps.dtype} {list(heatmaps.shape)}"
        raise UserError(f"{path} gives {given}, not heatmaps {list(expected)}")
    int8 = f"int8 ({metadata[INT8_KEY]}) and " if INT8_KEY in metadata else ""
    log.info("loaded %s, which runs in %s, %s%s", path, runtime, int8, test.PRECISION)
    return heatmaps_of(outputs)


def open_exported(path: Path, precision: str = "fp32") -> tuple[dict[str, str], Outputs]:
    """Return the metadata of a file and a function that runs it; UserError if it is damaged."""
    with as_user_error(f"cannot read {path}, it may be damaged: run tools/export.py again"):
        data, is_onnx = path.read_bytes(), path.suffix == ".onnx"
        weights = b"" if is_onnx else path.with_suffix(".bin").read_bytes()
        if seal(data, weights) != data:
            raise ValueError("its checksum is wrong")
        return _open_onnx(path, data) if is_onnx else _open_openvino(path, precision)


def _open_onnx(path: Path, data: bytes) -> tuple[dict[str, str], Outputs]:
    import onnx

    model = onnx.load_model_from_string(data)
    for tensor in _messages(model, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UserError(f"{path} keeps weights in other files, which could be anywhere")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return metadata, run_onnx(model.SerializeToString())


def _open_openvino(path: Path, precision: str) -> tuple[dict[str, str], Outputs]:
    model = import_openvino().Core().read_model(str(path))
    metadata = model.get_rt_info(SECTION).value if model.has_rt_info(SECTION) else {}
    return {key: str(value) for key, value in metadata.items()}, run_openvino(model, precision)


def _messages(message: Any, message_type: type) -> Iterator[Any]:
    """Yield every message of a type inside a protobuf message, at any depth."""
    if isinstance(message, message_type):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            is_repeated = isinstance(value, Sequence) or hasattr(value, "add")
            for child in value if is_repeated else [value]:
                yield from _messages(child, message_type)
