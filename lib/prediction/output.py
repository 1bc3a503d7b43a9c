"""Predictions on disk: drawn images, videos, and keypoints in COCO's results layout."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Outputs:
    """The files written for a source, None if not wanted, and the `image_id` of an image."""

    image: Path | None = None  # of a video: the folder of its drawn frames
    video: Path | None = None
    keypoints: Path | None = None  # of all images, or of the video
    image_id: int = 0

    @property
    def files(self) -> list[Path]:
        """The paths that are written."""
        return [path for path in (self.image, self.video, self.keypoints) if path is not None]


def plan_outputs(
    sources: Sequence[Source],
    folder: Path,
    writes: Sequence[str] | None = None,
    boxes: BoxFile | None = None,
) -> dict[Source, Outputs]:
    """Return the outputs of each source in a folder; `writes` are some of WRITES.

    The `image_id` of an image is that in the file of boxes if it has one, otherwise the index of
    the source. UserError if a file would overwrite an input or another output.
    """
    inputs = [source.path for source in sources] + ([str(boxes.path)] if boxes else [])
    owners = {Path(path).resolve(): "an input" for path in inputs}
    plan = {}
    for index, source in enumerate(sources):
        is_image, path = source.kind == "image", folder / source.name
        if is_image and path.suffix.lower() not in _IMAGE_FORMATS:
            path = path.with_name(f"{path.name}.png")
        wanted = DEFAULT_WRITES[source.kind] if writes is None else writes
        image_id = boxes.image_id(source.name) if boxes else None
        keypoints = folder / "keypoints.json" if is_image else path.with_suffix(".json")
        plan[source] = Outputs(
            (path if is_image else path.with_suffix("")) if "images" in wanted else None,
            path.with_suffix(".mp4") if "video" in wanted and not is_image else None,
            keypoints if "keypoints" in wanted else None,
            index if image_id is None else image_id,
        )
        for file in plan[source].files:
            is_shared = is_image and file == keypoints
            owner = "the keypoints of the images" if is_shared else f"a result of {source.path}"
            if owners.setdefault(file.resolve(), owner) != owner:
                raise UserError(
                    f"--out {folder}: {file} would overwrite {owners[file.resolve()]}; "
                    "choose another folder, or fewer inputs at once"
                )
    if writes and not any(outputs.files for outputs in plan.values()):
        raise UserError(f"--write {','.join(writes)}: the input has no video")
    return plan


@dataclass(frozen=True)
class Options:
    """What is done with people: in images, and in videos with `track` (ids) and `smooth` (joints).

    Joints above `keypoint_threshold` are drawn, with `draw_boxes` also boxes and ids. Images and
    frames of more than `max_pixels` are not read.
    """

    keypoint_threshold: float = KEYPOINT_THRESHOLD
    draw_boxes: bool = False
    track: bool = False
    smooth: bool = False
    max_pixels: int = MAX_PIXELS


class Recorder:
    """Writes the people of the images, or of one video; the files are complete after `close`.

    What writes a file runs in `reporting()`, which reports its error; the others are written.
    """

    def __init__(
        self,
        plan: dict[Source, Outputs],
        skeleton: Skeleton,
        options: Options,
        frame_rate: Fraction,
        reporting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._plan, self._skeleton, self._options = plan, skeleton, options
        self._frame_rate, self._reporting = frame_rate, reporting
        self._stack = ExitStack()
        self._write_frame: Callable[[np.ndarray, float], None] | None = None
        self._entries: dict[Path, list[dict[str, Any]]] = {}
        self._failed: set[Path] = set()

    def add(self, frame: Frame, people: Sequence[Person]) -> None:
        """Add a frame with its people."""
        outputs, image = self._plan[frame.source], frame.image
        if outputs.image or outputs.video:
            image = self._draw(image, people)
        if outputs.image is not None:
            name = "" if frame.number is None else f"{frame.number:06d}.jpg"
            self._try(outputs.image, save_image, outputs.image / name, image)
        if outputs.video is not None:
            self._try(outputs.video, self._add_to_video, outputs.video, image, frame.time)
        if outputs.keypoints is not None:
            image_id = outputs.image_id if frame.number is None else frame.number
            entries = self._entries.setdefault(outputs.keypoints, [])
            entries += [self._entry(person, frame, image_id) for person in people]

    def close(self) -> None:
        """Complete the files."""
        with self._reporting():
            self._stack.close()
        for file, entries in self._entries.items():
            self._try(file, write_bytes, file, json.dumps(entries, allow_nan=False).encode())

    def _try(self, path: Path, write: Callable[..., object], *arguments: object) -> None:
        """Write a part of an output, unless an earlier part failed."""
        if path not in self._failed:
            self._failed.add(path)
            with self._reporting():
                write(*arguments)
                self._failed.discard(path)

    def _draw(self, image: np.ndarray, people: Sequence[Person]) -> np.ndarray:
        for person in sorted(people, key=lambda person: person.score):
            if self._options.draw_boxes:
                image = draw_box(image, person.box, str(person.track_id or ""))
            threshold = self._options.keypoint_threshold
            image = draw_person(image, person.joints, person.scores, self._skeleton, threshold)
        return image

    def _add_to_video(self, path: Path, image: np.ndarray, time: float) -> None:
        if self._write_frame is None:
            writer = video_writer(path, self._frame_rate)
            self._write_frame = self._stack.enter_context(writer)
        try:
            self._write_frame(image, time)
        except UserError:
            with self._stack:  # it discards the file
                raise

    def _entry(self, person: Person, frame: Frame, image_id: int) -> dict[str, Any]:
        """Return a person as in COCO's results, with a few fields added."""
        joints = np.column_stack([person.joints, person.scores]).ravel()
        entry = {
            "image_id": image_id,
            "file_name": frame.source.name,
            "category_id": PERSON_CATEGORY,
            "keypoints": _rounded(joints),
            "keypoint_names": self._skeleton.names,
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
