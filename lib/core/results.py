"""A run's output on disk: its folder, who holds it, and its files."""

import math
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import json_tricks
from filelock import FileLock, Timeout
from yacs.config import CfgNode

from lib.utils.distributed import Distributed
from lib.utils.errors import UserError
from lib.utils.files import atomic_write

RESULTS = "results.json"  # of a test
_TRAINED = ("checkpoint*.pth", "model_best.*", "final_state.*", "history.json")


def run_folder(base: str, cfg: CfgNode, run: str) -> Path:
    """Return base/<dataset>/<model>/<run>."""
    if run == "..":  # of a file ...yaml
        raise UserError("a run cannot be named ..: rename the YAML file")
    return Path(base) / cfg.DATASET.DATASET / cfg.MODEL.NAME / run


@contextmanager
def hold(folder: Path, distributed: Distributed) -> Iterator[None]:
    """Hold a run's folder to the end, or death, of this command; UserError if another has it."""
    lock = FileLock(folder / ".lock", timeout=0) if distributed.is_main else nullcontext()
    holder = folder / ".lock_holder"
    try:
        with lock:
            if distributed.is_main:
                holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            yield
    except Timeout:
        name = holder.read_text() if holder.exists() else "another process"
        text = f"{folder} is in use by {name}: wait for its end, or choose another OUTPUT_DIR"
        raise UserError(text) from None


def trained_files(folder: Path) -> list[Path]:
    """Return what a training has written to a folder: checkpoints, weights, history."""
    return sorted(path for pattern in _TRAINED for path in folder.glob(pattern))


def set_aside(folder: Path, keep: Collection[Path] = ()) -> None:
    """Move the files in a run's folder, except some, to `outdated_1`, `outdated_2` ... in it."""
    files = [path for path in folder.glob("[!.]*") if path.is_file() and path not in keep]
    place = folder / f"outdated_{1 + sum(1 for _ in folder.glob('outdated_*'))}"
    for path in files:
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)


def results_folder(folder: Path, tested: str) -> Path:
    """Return where a test, of hash `tested`, replaces no other: the run's folder or `test_2` ..."""
    file, number = folder / RESULTS, 1
    while file.exists() and tested not in file.read_text(errors="replace"):
        number += 1
        file = folder / f"test_{number}" / RESULTS
    return file.parent


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
