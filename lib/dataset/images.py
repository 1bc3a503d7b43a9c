"""Sources of images, a folder or a zip file, and their decoding."""

import io
import math
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image

from lib.utils.errors import UserError

_DECODE = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}

JPEG = b"\xff\xd8"  # first bytes of a JPEG file
MAX_PIXELS = 200_000_000  # of an image or a video's frame, by default
TOO_LARGE = "has more than {:,} pixels; raise DATASET.MAX_PIXELS to read it"
# OpenCV's formats, as named by Pillow.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")

T = TypeVar("T")


class ImageFolder:
    """Images as files of a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder of images; see DATASET.ROOT")

    def read(self, name: str) -> bytes:
        """Return the file's content; UserError if it is missing or outside the folder."""
        return self._access(name, Path.read_bytes)

    def fingerprint(self, name: str) -> int:
        """Return the size in bytes, which mostly differs for another image, without reading it."""
        return self._access(name, lambda path: path.stat().st_size)

    def _access(self, name: str, read: Callable[[Path], T]) -> T:
        path = self.folder / _inside(name, self.folder)
        try:
            return read(path)
        except OSError as error:
            raise UserError(f"{path}: cannot read the image ({error.strerror})") from error


class ImageZip:
    """Images as entries of a zip file.

    Each process opens the file itself: a shared handle would share the position in the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such zip file of images; see DATASET.ROOT")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}

    def read(self, name: str) -> bytes:
        """Return the entry's content; UserError if the entry or the zip file cannot be read."""
        return self._access(name, lambda archive, entry: archive.read(entry))

    def fingerprint(self, name: str) -> int:
        """Return the checksum of the entry, as stored in the zip file."""
        return self._access(name, lambda archive, entry: archive.getinfo(entry).CRC)

    def _access(self, name: str, read: Callable[[zipfile.ZipFile, str], T]) -> T:
        entry = _inside(name, self.path)
        try:
            return read(self._open(), entry)
        except KeyError:
            raise UserError(f"{self.path}: the zip file has no entry {entry!r}") from None
        except Exception as error:  # zipfile raises many types on a damaged or encrypted file
            raise UserError(
                f"{self.path}: cannot read {entry!r} from the zip file ({error})"
            ) from error

    def _open(self) -> zipfile.ZipFile:
        if self._handle is None or self._owner != os.getpid():
            self._handle, self._owner = zipfile.ZipFile(self.path), os.getpid()
        return self._handle


ImageSource = ImageFolder | ImageZip


def _inside(name: str, source: Path) -> str:
    """Return `name` if it stays inside its source; UserError for `../x`, `/x` or `C:x`."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise UserError(f"{source}: the image name {name!r} must be a path inside it")
    return name


def decode_image(
    data: bytes, name: str, reduce: int = 1, upright: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode an image to BGR, uint8 [H, W, 3], without transparency.

    Annotation refers to the stored pixels, so EXIF's orientation is applied only if `upright`.
    `reduce` 2, 4 or 8 decodes a JPEG at that fraction of its size (rounded up), which is faster;
    `reduced_matrix` adapts the crop. UserError with `name` if the data is no image, or one of more
    than `max_pixels`, which is not decoded.
    """
    if _count_pixels(data) > max_pixels:
        raise UserError(f"{name}: the image {TOO_LARGE.format(max_pixels)}")
    flags = _DECODE[reduce] | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{name}: the file is not an image that can be decoded")
    return image


def _count_pixels(data: bytes) -> int:
    """Return the number of pixels by the header of an image file, 0 if it is not understood."""
    Image.init()
    # Not Image.open, which has a limit of its own.
    for factory, accepts in [Image.OPEN[name] for name in _FORMATS if name in Image.OPEN]:
        with suppress(Exception):  # Pillow raises many types on a damaged header
            if accepts is None or accepts(data[:16]):
                return math.prod(factory(io.BytesIO(data), "").size)
    return 0


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image file, upright as viewers show it: RGB, uint8 [H, W, 3].

    UserError names the file if it cannot be read or decoded, or has more than `max_pixels`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the image ({error.strerror})") from error
    image = decode_image(data, str(path), upright=True, max_pixels=max_pixels)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
