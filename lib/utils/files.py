"""Atomic writes, checksums in files, and JSON read with a clear error."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.utils.errors import UserError, as_user_error

SHA256_KEY, BLANK_SHA256 = "content_sha256", "0" * 64  # in the metadata of a file to `seal`
_SEAL = re.compile(rb"content_sha256.{1,12}?([0-9a-f]{64})", re.DOTALL)


@contextmanager
def atomic_write(path: str | Path, keep_previous: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which is renamed to `path` at the end of the block.

    Flushed to the disk first, so that a crash leaves the old file or the new one. The temporary
    name has the suffix of `path`, and a later call overwrites what a crash left. A missing folder
    is created. With `keep_previous` the old file is kept as `previous_of(path)`. UserError if the
    file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".part.{path.name[-60:]}")  # a name has at most 255 bytes
    try:
        with new_folder(path.parent):
            try:
                yield temporary
                with temporary.open("rb+") as file:  # Windows flushes only files open for writing
                    os.fsync(file.fileno())
                if keep_previous and path.exists():
                    _keep(path, previous_of(path))
                temporary.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder; after an error the new folders that are still empty are removed."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # it is not empty
            for path in missing:
                path.rmdir()
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file by `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def seal(data: bytes, *others: bytes) -> bytes:
    """Return a file's content with the SHA-256 of it and `others` as its SHA256_KEY.

    A sealed file stays as it is, unless it is damaged. ValueError if there is no such key.
    """
    place = _SEAL.search(data)
    if place is None:
        raise ValueError("it has no checksum")
    parts = data[: place.start(1)], BLANK_SHA256.encode(), data[place.end(1) :]
    digest = hashlib.sha256(b"".join((*parts, *others))).hexdigest()
    return parts[0] + digest.encode() + parts[2]


def read_json(path: str | Path) -> Any:
    """Read a JSON file; UserError, one line, if it is missing or damaged."""
    with as_user_error(f"{path}: cannot be read, or is not valid JSON"):
        return json.loads(Path(path).read_bytes())


def previous_of(path: str | Path) -> Path:
    """Return the path of the previous version of a file: `a.pth` -> `a_previous.pth`."""
    path = Path(path)
    return path.with_stem(f"{path.stem}_previous")


def _keep(path: Path, copy: Path) -> None:
    """Give a file a second name; at any instant there is a whole file under the first."""
    copy.unlink(missing_ok=True)
    try:
        os.link(path, copy)
    except OSError:  # a file system without hard links
        path.replace(copy)
