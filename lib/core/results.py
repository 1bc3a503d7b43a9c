"""What a run leaves on disk: its folder, its predictions and its scores."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import json_tricks
import numpy as np
from yacs.config import CfgNode

from lib.utils.errors import UserError
from lib.utils.files import replacing
from lib.utils.mat import write_mat
from lib.utils.text import can_be_path


def run_folder(base: str, cfg: CfgNode, run: str) -> Path:
    """Make and return base/<dataset>/<model>/<run>; UserError where nothing can be written."""
    if run in (".", "..") or not can_be_path(run):
        raise UserError(f"{run!r} cannot be the name of a run's folder: rename the YAML file")
    folder = Path(base) / cfg.DATASET.DATASET / cfg.MODEL.NAME / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the output folder {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"the output folder {folder} cannot be written; see --modelDir, --logDir")
    return folder


def write_predictions(path: Path, joints: np.ndarray) -> None:
    """Write `pred.mat`, key `preds`: joints [N, J, 2] in 0-based pixels, 1-based in the file."""
    write_mat(path, {"preds": joints + 1.0})


def write_json(path: str | Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a JSON file; numpy numbers and arrays may be in it, and nan becomes null."""
    with replacing(path) as aside:
        aside.write_text(json_tricks.dumps(_nan_to_none(content), indent=2, primitives=True) + "\n")


def scalar_tag(name: str) -> str:
    """What TensorBoard's logs call an entry of `history.json`: train/loss, test/Mean_0.1, …."""
    return f"{'train' if name in ('loss', 'rate') else 'test'}/{name.replace('@', '_')}"


def _nan_to_none(content: Any) -> Any:
    """JSON has no nan."""
    if isinstance(content, Mapping):
        return {key: _nan_to_none(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_nan_to_none(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
