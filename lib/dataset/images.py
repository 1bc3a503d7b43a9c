"""Where pictures come from: a folder or a zip file; and how they are decoded."""

import lzma
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from lib.utils.errors import UserError

# Annotations are made in the stored pixels, so the camera's note how to turn them is not heeded.
_DECODE = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


# What a damaged archive, or one that is locked, makes the reader raise.
_ZIP_ERRORS = (
    OSError, EOFError, RuntimeError, NotImplementedError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


class ImageSource(Protocol):
    """A place that pictures are read from by name."""

    def read(self, name: str) -> bytes:
        """Return the encoded picture; UserError where it cannot be read."""
        ...

    def mark(self, name: str) -> int:
        """Return a number that changes with the picture, without reading it."""
        ...


class ImageFolder:
    """Pictures as files of a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: there is no such folder of images")

    def read(self, name: str) -> bytes:
        """Return the file's content; UserError if it is missing or lies outside the folder."""
        path = self.folder / _inside(name, self.folder)
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot read the image ({error.strerror})") from error

    def mark(self, name: str) -> int:
        """Return the file's size in bytes; UserError as `read`."""
        path = self.folder / _inside(name, self.folder)
        try:
            return path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: cannot read the image ({error.strerror})") from error


class ImageZip:
    """Pictures as entries of a zip file, which every process opens for itself when it first reads.

    A handle that processes share would share its place in the file too.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1
        if not self.path.is_file():
            raise UserError(f"{self.path}: there is no such zip file of images")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_owner": -1}

    def read(self, name: str) -> bytes:
        """Return the entry's content; UserError if the entry or the zip file cannot be read."""
        return self._ask(name, lambda archive, entry: archive.read(entry))

    def mark(self, name: str) -> int:
        """Return the checksum that the zip file holds of the entry; UserError as `read`."""
        return self._ask(name, lambda archive, entry: archive.getinfo(entry).CRC)

    def _ask(self, name: str, question: Callable[[zipfile.ZipFile, str], Any]) -> Any:
        entry = _inside(name, self.path)
        try:
            return question(self._open(), entry)
        except KeyError:
            raise UserError(f"{self.path}: there is no entry {entry!r} in the zip file") from None
        except _ZIP_ERRORS as error:
            raise UserError(
                f"{self.path}: cannot read {entry!r} from the zip file ({error})"
            ) from error

    def _open(self) -> zipfile.ZipFile:
        if self._handle is None or self._owner != os.getpid():
            self._handle = zipfile.ZipFile(self.path)
            self._owner = os.getpid()
        return self._handle


def _inside(name: str, source: Path) -> str:
    """Return `name` if it stays inside its source; UserError for `../x`, `/x`, `C:x` and such."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name:
        raise UserError(f"{source}: the image name {name!r} does not stay inside; name it relative")
    return name


def is_jpeg(data: bytes) -> bool:
    """Tell whether `data` begins as JPEG files do; those alone can be decoded smaller."""
    return data.startswith(b"\xff\xd8")


def decode_image(data: bytes, name: str, reduce: int = 1, upright: bool = False) -> np.ndarray:
    """Decode a picture to BGR, uint8 [H, W, 3]; of 16 bits the upper 8, without transparency.

    As stored, where EXIF's orientation is not applied, or `upright`, as viewers show it. `reduce`
    2, 4 or 8 decodes a JPEG at that fraction of its size (rounded up), which is quicker than to
    decode all of it: its blocks are left smaller (`reduced_matrix` fits the crop to it).
    UserError names `name` where the data is no picture.
    """
    assert reduce == 1 or is_jpeg(data), "only JPEG files can be decoded smaller"
    flags = _DECODE[reduce] & ~cv2.IMREAD_IGNORE_ORIENTATION if upright else _DECODE[reduce]
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{name}: the file is not an image that can be decoded")
    return image
