"""Input and output media: images, folders, glob patterns and videos.

Images and frames are uint8 RGB [H, W, 3], upright as viewers show them.
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

from lib.utils.errors import UserError
from lib.utils.files import atomic_write

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm",
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp",
)  # fmt: skip
DEFAULT_FRAME_RATE = 25.0  # frames a second, of files without one


@dataclass(frozen=True)
class Source:
    """An image or a video; `name` is its path, with `/`, below the folder that the user named."""

    kind: Literal["image", "video"]
    path: str
    name: str


@dataclass(frozen=True, eq=False)
class Frame:
    """An image, or a frame of a video, whose `number` counts from 0."""

    image: np.ndarray
    source: Source
    number: int | None = None


def find_sources(inputs: Iterable[str]) -> list[Source]:
    """Return the sources of the inputs, each once; within an input they are sorted by name.

    An input is a file, a folder (its images and videos) or a glob pattern. UserError if an input
    has no source.
    """
    sources = [source for text in inputs for source in _sources_of(text)]
    return list({os.path.realpath(source.path): source for source in sources}.values())


def _sources_of(text: str) -> list[Source]:
    is_folder = os.path.isdir(text)
    root, pattern = os.path.dirname(text), text
    if os.path.exists(text):
        pattern = glob.escape(text)
    if is_folder:
        root, pattern = text, os.path.join(pattern, "*")
    while glob.has_magic(root) and not os.path.isdir(root):
        root = os.path.dirname(root)
    sources = []
    for path in filter(os.path.isfile, sorted(glob.glob(pattern, recursive=True))):
        suffix = Path(path).suffix.lower()
        if suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES or not is_folder:
            name = os.path.relpath(path, root or ".").replace(os.sep, "/")
            sources.append(Source("video" if suffix in VIDEO_SUFFIXES else "image", path, name))
    if not sources:
        raise UserError(
            f"--input {text}: no image or video found; name a file, a folder or a pattern"
        )
    return sources


def silence_codecs() -> None:
    """Turn off the messages of OpenCV and FFmpeg about damaged files, before the first video."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Video:
    """The frames of a video; iterate once, and close.

    `frame_rate` is in frames a second, `length` the number of frames in the file's header, 0 if
    unknown. UserError if it cannot be opened.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._capture = cv2.VideoCapture(source.path)
        if not self._capture.isOpened():
            raise UserError(f"{source.path}: cannot decode this video")
        frame_rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = frame_rate if 1 <= frame_rate <= 1000 else DEFAULT_FRAME_RATE
        length = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(length) if 0 < length < 1e9 else 0

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while (decoded := self._capture.read())[0]:
            yield Frame(cv2.cvtColor(decoded[1], cv2.COLOR_BGR2RGB), self.source, number)
            number += 1
        if number < self.length or number == 0:
            log.warning("%s: decoded only %d of %d frames", self.source.path, number, self.length)

    def close(self) -> None:
        """Release the file."""
        self._capture.release()


@contextmanager
def video_writer(
    path: Path, frame_rate: float, size: tuple[int, int]
) -> Iterator[Callable[[np.ndarray], object]]:
    """Yield a function that adds a frame of `size` (w, h); at the end the video becomes `path`.

    MPEG-4 cuts odd sides by a pixel. UserError if this OpenCV cannot write such a file.
    """
    with atomic_write(path) as temporary:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(temporary), code, frame_rate, size)
        if not writer.isOpened():
            raise UserError(f"cannot write {path}: OpenCV has no MPEG-4 encoder for it")
        try:
            yield lambda image: writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()
