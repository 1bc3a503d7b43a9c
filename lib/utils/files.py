"""Files that are written whole or not at all, and JSON read with a word for what is wrong."""

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.utils.errors import UserError
from lib.utils.text import brief


@contextmanager
def replacing(path: str | Path, keeps_previous: bool = False) -> Iterator[Path]:
    """Give a path to write to; at the end of the block it becomes `path`, in one instant.

    Flushed to the disk first, so that a crash leaves the old file or the new one, never a part.
    The name ends as `path` does, and what a crash left there is written over by the next try. With
    `keeps_previous` what `path` held before is then found as `previous_of(path)`.
    UserError where the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".part.{path.name}")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        if keeps_previous and path.exists():
            _keep(path, previous_of(path))
        aside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole, as `replacing`; make its folder where it lacks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    with replacing(path) as aside:
        aside.write_bytes(data)


def read_json(path: str | Path) -> Any:
    """Read a JSON file; UserError, one line, where it is missing or damaged."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({brief(str(error))})") from error


def previous_of(path: str | Path) -> Path:
    """Where the file before `path` is kept: `a.pth` -> `a_previous.pth`."""
    path = Path(path)
    return path.with_stem(f"{path.stem}_previous")


def _keep(path: Path, previous: Path) -> None:
    """Give the file a second name, so that there is a whole file under the first at any instant."""
    aside = previous.with_name(f".part.{previous.name}")
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:  # a file system without links
        path.replace(aside)
    aside.replace(previous)


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, which fsync of a file does not, where possible."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
