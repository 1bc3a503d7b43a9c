"""A run's output on disk: its folder and its JSON files."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import json_tricks
from yacs.config import CfgNode

from lib.utils.errors import UserError
from lib.utils.files import atomic_write


def run_folder(base: str, cfg: CfgNode, run: str) -> Path:
    """Make and return base/<dataset>/<model>/<run>; UserError if it cannot be written."""
    if run == "..":  # of a file ...yaml
        raise UserError("a run cannot be named ..: rename the YAML file")
    folder = Path(base) / cfg.DATASET.DATASET / cfg.MODEL.NAME / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the output folder {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"the output folder {folder} is not writable; see --modelDir, --logDir")
    return folder


def write_json(path: str | Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a JSON file; takes NumPy numbers and arrays, and writes nan as null."""
    with atomic_write(path) as temporary:
        text = json_tricks.dumps(_nan_to_none(content), indent=2, primitives=True)
        temporary.write_text(text + "\n")


def _nan_to_none(content: Any) -> Any:  # JSON has no nan
    if isinstance(content, Mapping):
        return {key: _nan_to_none(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_nan_to_none(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
