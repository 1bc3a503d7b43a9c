"""What users bring: pictures, folders, patterns, videos and the camera; read ahead, and written.

Pictures and frames are uint8 RGB [H, W, 3], upright, as viewers show them. A video that breaks off
is told, and what was read of it counts.
"""

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from lib.dataset.images import decode_image
from lib.utils.errors import UserError
from lib.utils.files import replacing
from lib.utils.text import can_be_path

log = logging.getLogger(__name__)

PICTURE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".avif",
    ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".hdr", ".exr", ".ras", ".sr",
)  # fmt: skip
VIDEO_ENDINGS = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts",
    ".3gp", ".ogv",
)  # fmt: skip

_USUAL_RATE = 25.0  # frames a second, of cameras and files that do not say


@dataclass(frozen=True)
class Medium:
    """A picture, a video or a camera: `source` is a path or the camera's number.

    `name` is the path below what the user named, with `/`.
    """

    kind: Literal["picture", "video", "camera"]
    source: str
    name: str


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, or a frame of a video or camera, whose `number` counts from 0."""

    image: np.ndarray
    medium: Medium
    number: int | None = None


def find_media(text: str) -> list[Medium]:
    """Find what a user names: a file, a folder's pictures and videos, a pattern, a camera's number.

    In the order of names. UserError where nothing is found or the folder cannot be read.
    """
    if text.isdecimal() and not os.path.lexists(text):
        return [Medium("camera", text, f"camera{text}")]
    if not text or not can_be_path(text):
        raise UserError(f"--input: {text!r} is not a path")
    if os.path.isdir(text):
        return _of_folder(Path(text))
    if os.path.lexists(text):
        return [_medium(text, os.path.basename(text))]
    if not glob.has_magic(text):
        raise UserError(f"--input: there is no file or folder {text}")
    root = _fixed_part(text)
    found = [path for path in sorted(glob.glob(text, recursive=True)) if os.path.isfile(path)]
    if not found:
        raise UserError(f"--input: no file fits the pattern {text}")
    return [_medium(path, os.path.relpath(path, root or ".")) for path in found]


def gather_media(texts: Iterable[str]) -> list[Medium]:
    """Find what a user names in several places, each file once; what is not found is told.

    UserError where nothing is found at all.
    """
    found: dict[str, Medium] = {}
    faults = []
    for text in texts:
        try:
            for medium in find_media(text):
                is_file = medium.kind != "camera"
                found.setdefault(os.path.realpath(medium.source) if is_file else text, medium)
        except UserError as error:
            faults.append(str(error))
    if not found:
        raise UserError("; ".join(faults))
    for fault in faults:
        log.warning("%s; going on with the rest", fault)
    return list(found.values())


def _of_folder(folder: Path) -> list[Medium]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        files = [path for path in paths if path.is_file()]
    except OSError as error:
        raise UserError(f"--input: cannot read the folder {folder} ({error.strerror})") from error
    known = PICTURE_ENDINGS + VIDEO_ENDINGS
    found = [path for path in files if path.suffix.lower() in known]
    if not found:
        raise UserError(f"--input: the folder {folder} holds no picture and no video")
    return [_medium(str(path), path.name) for path in found]


def _fixed_part(pattern: str) -> str:
    """The folder of a pattern, as far as nothing in it varies."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder


def _medium(path: str, name: str) -> Medium:
    kind = "video" if Path(path).suffix.lower() in VIDEO_ENDINGS else "picture"
    return Medium(kind, path, name.replace(os.sep, "/"))


def hush_codecs() -> None:
    """Keep OpenCV and FFmpeg from telling what they meet in files; we tell it, in one line a file.

    Once a process, before the first video.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture of any kind; UserError names the file that cannot be read or decoded."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the image ({error.strerror})") from error
    image = decode_image(data, str(path), upright=True)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class Video:
    """The frames of a video or camera; iterate once, and close.

    `frame_rate` is in frames a second, `length` the number of frames that the file announces, 0
    where it does not. UserError where it cannot be opened.
    """

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        is_camera = medium.kind == "camera"
        self._capture = cv2.VideoCapture(int(medium.source) if is_camera else medium.source)
        if not self._capture.isOpened():
            raise UserError(
                f"there is no camera {medium.source} here, or another program has it"
                if is_camera
                else f"{medium.source}: the file is not a video that can be decoded"
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = rate if 1 <= rate <= 1000 else _USUAL_RATE
        length = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(length) if not is_camera and 0 < length < 1e9 else 0

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while True:
            there, image = self._capture.read()
            if not there:
                break
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.medium, number)
            number += 1
        if number < self.length or number == 0:
            log.warning(
                "%s: breaks off after %d of %s frames; going on with what is there",
                self.medium.source, number, self.length or "?",
            )  # fmt: skip

    def close(self) -> None:
        """Let go of the file or camera."""
        self._capture.release()


@contextmanager
def writing_video(path: str | Path, frame_rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that adds a frame; at the end of the block the video becomes `path`.

    All frames have the size of the first; MPEG-4 cuts odd sides by a pixel. Without any frame there
    is no file. UserError where this OpenCV cannot write such a file.
    """
    path = Path(path)
    writer: cv2.VideoWriter | None = None
    try:
        with replacing(path) as aside:

            def write(image: np.ndarray) -> None:
                nonlocal writer
                if writer is None:
                    code = cv2.VideoWriter_fourcc(*"mp4v")
                    writer = cv2.VideoWriter(str(aside), code, frame_rate, image.shape[1::-1])
                    if not writer.isOpened():
                        raise UserError(f"cannot write {path}: OpenCV has no MPEG-4 writer for it")
                writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

            yield write
            if writer is None:
                raise _NothingWrittenError
            writer.release()
    except _NothingWrittenError:
        pass
    finally:
        if writer is not None:
            writer.release()


class _NothingWrittenError(Exception):
    """Leaves `replacing` without a file."""
