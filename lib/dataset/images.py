"""Sources of images, a folder or a zip file, and their decoding."""

import functools
import io
import math
import os
import posixpath
import re
import tempfile
import threading
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

JPEG, JPEG_END = b"\xff\xd8", b"\xff\xd9"  # first and last bytes of a JPEG file

# How libjpeg reports damage; a few bytes before a marker are none, some cameras write them.
_CORRUPT = re.compile(r"Corrupt JPEG data: (?:\d extraneous.*|(.*))\n?")

_stderr_lock = threading.Lock()
_stderr_log = functools.lru_cache(1)(lambda process: tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
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
            raise UserError(f"{folder} is missing: see DATASET.ROOT or set DATASET.DATA_FORMAT zip")

    def read(self, name: str) -> bytes:
        """Return the file's content; UserError if it is missing or outside the folder."""
        return _access(self.folder / _inside(name, self.folder), Path.read_bytes)

    def fingerprint(self, name: str) -> int:
        """Return the size in bytes, which mostly differs for another image, without reading it."""
        return _access(self.folder / _inside(name, self.folder), lambda path: path.stat().st_size)


class ImageZip:
    """Images as entries of a zip file.

    Each process opens the file itself: a shared handle would share the position in the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1
        if not self.path.is_file():
            raise UserError(f"{path} is missing: see DATASET.ROOT or set DATASET.DATA_FORMAT jpg")

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
            with suppress(KeyError):
                return read(self._open(), entry)
            return read(self._open(), f"{self.path.stem}/{entry}")  # as COCO's archives are packed
        except KeyError:
            first = next((info.filename for info in self._open().infolist()), None)
            text = f"no entry {entry!r}, the first is {first!r}: pack images without a folder"
            raise UserError(f"{self.path}: the zip file has {text}") from None
        except Exception as error:  # zipfile raises many types on a damaged or encrypted file
            text = f"cannot read {entry!r} from the zip file ({error})"
            raise UserError(f"{self.path}: {text}") from error

    def _open(self) -> zipfile.ZipFile:
        if self._handle is None or self._owner != os.getpid():
            self._handle, self._owner = zipfile.ZipFile(self.path), os.getpid()
        return self._handle


ImageSource = ImageFolder | ImageZip


def _access(path: Path, read: Callable[[Path], T]) -> T:
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait forever
            raise UserError(f"{path}: cannot read the image (it is not a file)")
        return read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read the image ({error.strerror})") from error


def _inside(name: str, source: Path) -> str:
    """Return the path of an image in its source; UserError if `name` leads out of that."""
    path = posixpath.normpath(name.replace("\\", "/"))
    if path.startswith(("../", "/")):  # it may come back
        path = os.path.relpath(os.path.join(source, path), source).replace(os.sep, "/")
    is_foreign = re.match(r"[A-Za-z]:/", path) or "://" in name or os.path.splitdrive(path)[0]
    if is_foreign or path in (".", "..") or path.startswith("../"):
        raise UserError(f"{source}: the image name {name!r} must be a path inside it")
    return path if ".." in name or os.path.isabs(name) else name


def decode_image(
    data: bytes, name: str, reduce: int = 1, upright: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode an image to BGR, uint8 [H, W, 3], without transparency.

    Annotation refers to the stored pixels, so EXIF's orientation is applied only if `upright`.
    `reduce` 2, 4 or 8 decodes a JPEG at that fraction of its size (rounded up), which is faster;
    `reduced_matrix` adapts the crop. UserError with `name` if the data is no image, or one of more
    than `max_pixels`, which is not decoded.
    """
    if math.prod(image_size(data)) > max_pixels:
        raise UserError(f"{name}: the image {TOO_LARGE.format(max_pixels)}")
    flags = _DECODE[reduce] | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    # Without an end, OpenCV 4 does not notice that a JPEG breaks off.
    image, damage = _decode(data + JPEG_END if data.startswith(JPEG) else data, flags)
    if image is None:
        raise UserError(f"{name}: the file is not an image that can be decoded: use a JPEG")
    if damage:
        raise UserError(f"{name}: the image is damaged ({damage}): replace the file")
    return image


def _decode(data: bytes, flags: int) -> tuple[np.ndarray | None, str | None]:
    """Return the image, None if there is none, and the damage that libjpeg filled with gray.

    It reports that to standard error only. What other threads write meanwhile is passed on.
    """
    with _stderr_lock:
        log, stderr = _stderr_log(os.getpid()), os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
        except cv2.error:
            image = None
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        if log.tell() == 0:
            return image, None
        log.seek(0)
        text = log.read().decode(errors="replace")
        log.truncate(log.seek(0))
    os.write(2, _CORRUPT.sub("", text).encode())
    return image, next(iter(_CORRUPT.findall(text)), None)


def image_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) by the header of an image file, (0, 0) if it is not understood."""
    Image.init()
    # Not Image.open, which has a limit of its own.
    for factory, accepts in [Image.OPEN[name] for name in _FORMATS if name in Image.OPEN]:
        with suppress(Exception):  # Pillow raises many types on a damaged header
            if accepts is None or accepts(data[:16]):
                width, height = factory(io.BytesIO(data), "").size
                return width, height
    return 0, 0


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image file, upright as viewers show it: RGB, uint8 [H, W, 3].

    UserError names the file if it cannot be read or decoded, or has more than `max_pixels`.
    """
    data = _access(Path(path), Path.read_bytes)
    image = decode_image(data, str(path), upright=True, max_pixels=max_pixels)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
