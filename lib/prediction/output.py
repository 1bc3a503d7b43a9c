"""Predictions on disk: drawn images, videos, and keypoints in COCO's results layout."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.dataset.boxes import PERSON_CATEGORY, BoxFile
from lib.dataset.images import MAX_PIXELS
from lib.dataset.skeleton import Skeleton
from lib.prediction.media import Frame, Source
from lib.prediction.video import video_writer
from lib.predictor import Person
from lib.utils.drawing import KEYPOINT_THRESHOLD, draw_box, draw_person, save_image
from lib.utils.errors import UserError
from lib.utils.files import write_bytes

WRITES = ("images", "video", "keypoints")
DEFAULT_WRITES = {"image": ("images", "keypoints"), "video": ("video", "keypoints")}
_IMAGE_FORMATS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Outputs(NamedTuple):
    """The files written for a source, by WRITES, and the `image_id` of an image.

    `images` is a video's folder of drawn frames; the `keypoints` of all images are one file.
    """

    files: dict[str, Path]
    image_id: int


Plan = dict[Source, Outputs]


def plan_outputs(
    sources: Sequence[Source], folder: Path, writes: Sequence[str] | None, boxes: BoxFile | None
) -> Plan:
    """Return the outputs of each source in a folder; `writes` are some of WRITES.

    The `image_id` of an image is that in the file of boxes if it has one, otherwise its index.
    UserError if a file would overwrite an input or another output.
    """
    inputs = [source.path for source in sources] + ([str(boxes.path)] if boxes else [])
    owners = {os.path.realpath(path): "an input" for path in inputs}  # a link may be a loop
    plan = {}
    for index, source in enumerate(sources):
        path, wanted = folder / source.name, writes or DEFAULT_WRITES[source.kind]
        if source.kind == "image":
            suffix = "" if path.suffix.lower() in _IMAGE_FORMATS else ".png"
            files = {"images": path.with_name(path.name + suffix)}
            files["keypoints"] = folder / "keypoints.json"
        else:
            suffixes = {"images": "", "video": ".mp4", "keypoints": ".json"}
            files = {kind: path.with_suffix(suffix) for kind, suffix in suffixes.items()}
        image_id = boxes.image_id(source.name) if boxes else None
        files = {kind: file for kind, file in files.items() if kind in wanted}
        plan[source] = Outputs(files, index if image_id is None else image_id)
        for file in files.values():
            is_shared = file == folder / "keypoints.json" and source.kind == "image"
            owner = "the keypoints of the images" if is_shared else f"a result of {source.path}"
            if (first := owners.setdefault(os.path.realpath(file), owner)) != owner:
                problem = f"{file} would overwrite {first}; choose another folder or fewer inputs"
                raise UserError(f"--out {folder}: {problem}")
    if writes and not any(outputs.files for outputs in plan.values()):
        raise UserError(f"--write {','.join(writes)}: the input has no video")
    return plan


@dataclass(frozen=True)
class Options:
    """What is done with people."""

    keypoint_threshold: float = KEYPOINT_THRESHOLD  # joints above it are drawn
    draw_boxes: bool = False  # and ids
    track: bool = False  # ids, in videos
    smooth: bool = False  # joints, in videos
    max_pixels: int = MAX_PIXELS  # of images and frames that are read


@dataclass(eq=False)
class Recorder:
    """Writes the people of the images, or of one video; the files are complete after `close`.

    What writes a file runs in `reporting()`, which reports its error; the others are written.
    """

    plan: Plan
    skeleton: Skeleton
    options: Options
    frame_rate: Fraction
    reporting: Callable[[], AbstractContextManager[None]]
    _stack: ExitStack = field(default_factory=ExitStack)
    _write_frame: Callable[[np.ndarray, float], None] | None = None
    _entries: dict[Path, list[dict[str, Any]]] = field(default_factory=dict)
    _failed: set[Path] = field(default_factory=set)

    def add(self, frame: Frame, people: Sequence[Person]) -> None:
        """Add a frame with its people."""
        files, image_id = self.plan[frame.source]
        drawn = self._draw(frame.image, people) if files.keys() - {"keypoints"} else frame.image
        if path := files.get("images"):
            name = "" if frame.number is None else f"{frame.number:06d}.jpg"
            self._try(path, save_image, path / name, drawn)
        if path := files.get("video"):
            self._try(path, self._add_to_video, path, drawn, frame.time)
        if path := files.get("keypoints"):
            entries = self._entries.setdefault(path, [])
            entries += [self._entry(person, frame, image_id) for person in people]

    def close(self) -> None:
        """Complete the files."""
        with self.reporting():
            self._stack.close()
        for file, entries in self._entries.items():
            self._try(file, write_bytes, file, json.dumps(entries, allow_nan=False).encode())

    def _try(self, path: Path, write: Callable[..., object], *arguments: object) -> None:
        """Write a part of an output, unless an earlier part failed."""
        if path not in self._failed:
            self._failed.add(path)
            with self.reporting():
                write(*arguments)
                self._failed.discard(path)

    def _draw(self, image: np.ndarray, people: Sequence[Person]) -> np.ndarray:
        for person in sorted(people, key=lambda person: person.score):
            if self.options.draw_boxes:
                image = draw_box(image, person.box, str(person.track_id or ""))
            threshold = self.options.keypoint_threshold
            image = draw_person(image, person.joints, person.scores, self.skeleton, threshold)
        return image

    def _add_to_video(self, path: Path, image: np.ndarray, time: float) -> None:
        if self._write_frame is None:
            self._write_frame = self._stack.enter_context(video_writer(path, self.frame_rate))
        try:
            self._write_frame(image, time)
        except UserError:
            with self._stack:  # it discards the file
                raise

    def _entry(self, person: Person, frame: Frame, image_id: int) -> dict[str, Any]:
        """Return a person as in COCO's results, with a few fields added."""
        entry = {
            "image_id": image_id if frame.number is None else frame.number,
            "file_name": frame.source.name,
            "category_id": PERSON_CATEGORY,
            "keypoints": _rounded(np.column_stack([person.joints, person.scores]).ravel()),
            "keypoint_names": self.skeleton.names,
            "score": round(person.score, 5),
            "bbox": _rounded(person.box),
        }
        if frame.number is not None:
            entry["time"] = round(frame.time, 6)  # in seconds
        if person.track_id is not None:
            entry["track_id"] = person.track_id
        return entry


def _rounded(numbers: np.ndarray) -> list[float]:
    return np.nan_to_num(numbers.astype(np.float64)).round(4).tolist()  # JSON has no NaN
