"""The images and videos that the user names: files, folders and glob patterns."""

import glob
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from lib.utils.errors import UserError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm",
    ".jfif", ".heic", ".heif",  # OpenCV cannot read HEIC, but a folder's are reported
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts",
    ".m2ts", ".3gp", ".ogv",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """An image or a video."""

    kind: Literal["image", "video"]
    path: str
    # The path below the folder that the user named, with `/`, and `\xff` for what is not UTF-8.
    name: str


@dataclass(frozen=True, eq=False)
class Frame:
    """An image, or a frame of a video."""

    image: np.ndarray  # uint8 RGB [H, W, 3], upright as viewers show it
    source: Source
    number: int | None = None  # of a video's frame, from 0
    time: float = 0.0  # in seconds since the first frame


def find_sources(
    inputs: Iterable[str], recursive: bool = False, exclude: Path | None = None
) -> list[Source]:
    """Return the sources of the inputs, each once; within an input they are sorted by name.

    An input is a file, a folder (its images and videos, with `recursive` also those of folders in
    it, but for the folder `exclude`) or a glob pattern. UserError if an input has no source.
    """
    sources = [source for text in inputs for source in _sources_of(text, recursive, exclude)]
    return list({os.path.realpath(source.path): source for source in sources}.values())


def _sources_of(text: str, recursive: bool, exclude: Path | None) -> list[Source]:
    is_folder = os.path.isdir(text)
    root, pattern = os.path.dirname(text), text
    excluded = recursive and exclude and os.path.realpath(exclude)
    if os.path.exists(text):
        pattern = glob.escape(text)
    if is_folder:
        root, pattern = text, os.path.join(pattern, "**" if recursive else "", "*")
    while glob.has_magic(root) and not os.path.isdir(root):
        root = os.path.dirname(root)
    sources = []
    # Broken links and pipes are sources, too: that they cannot be read is reported.
    for path in itertools.filterfalse(os.path.isdir, sorted(glob.glob(pattern, recursive=True))):
        suffix = Path(path).suffix.lower()
        if is_folder and (
            suffix not in IMAGE_SUFFIXES + VIDEO_SUFFIXES
            or (excluded and Path(os.path.realpath(path)).is_relative_to(excluded))
        ):
            continue
        name = os.fsencode(os.path.relpath(path, root or ".").replace(os.sep, "/"))
        kind: Literal["image", "video"] = "video" if suffix in VIDEO_SUFFIXES else "image"
        sources.append(Source(kind, path, name.decode(errors="backslashreplace")))
    if not sources:
        hint = "name a file, a folder or a pattern, or search folders in it with --recursive"
        raise UserError(f"--input {text}: no image or video found; {hint}")
    return sources


def silence_codecs() -> None:
    """Turn off OpenCV's messages about damaged images."""
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
