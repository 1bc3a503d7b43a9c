"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.utils.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path to write to; at the end of the block it becomes `path`, in one instant.

    Flushed to the disk first, so that a crash leaves the old file or the new one, never a part.
    The name ends as `path` does, and what a crash left there is written over by the next try.
    UserError where the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".part.{path.name}")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def keep_previous(path: str | Path) -> None:
    """Let what `path` holds be found as `previous_of(path)` too, before `path` is written anew.

    Both names lead to the same content until then, so that there is a whole file at any instant.
    """
    path, previous = Path(path), previous_of(path)
    if not path.exists():
        return
    aside = previous.with_name(f".part.{previous.name}")
    try:
        aside.unlink(missing_ok=True)
        try:
            os.link(path, aside)
            aside.replace(previous)
        except OSError:  # a file system without links
            path.replace(previous)
        _flush_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {previous}: {error.strerror or error}") from error


def previous_of(path: str | Path) -> Path:
    """Where the file before `path` is kept: `a.pth` -> `a_previous.pth`."""
    path = Path(path)
    return path.with_stem(f"{path.stem}_previous")


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, as fsync of a file does not."""
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
