"""Predictions on disk: drawn images, videos, and keypoints in COCO's results layout."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.dataset.skeleton import Skeleton
from lib.prediction.boxes import PERSON_CATEGORY, BoxFile
from lib.prediction.media import Frame, Source, video_writer
from lib.predictor import Person
from lib.utils.drawing import draw_person, save_image
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


class Recorder:
    """Writes the people of the images, or of one video; the files are complete after `close`."""

    def __init__(self, plan: dict[Source, Outputs], skeleton: Skeleton, frame_rate: float) -> None:
        self._plan, self._skeleton, self._frame_rate = plan, skeleton, frame_rate
        self._stack = ExitStack()
        self._write_frame: Callable[[np.ndarray], object] | None = None
        self._entries: dict[Path, list[dict[str, Any]]] = {}

    def add(self, frame: Frame, people: Sequence[Person]) -> None:
        """Add a frame with its people."""
        outputs, image = self._plan[frame.source], frame.image
        if outputs.image or outputs.video:
            for person in sorted(people, key=lambda person: person.score):
                image = draw_person(image, person.joints, person.scores, self._skeleton)
        if outputs.image is not None:
            is_image = frame.number is None
            save_image(outputs.image / ("" if is_image else f"{frame.number:06d}.jpg"), image)
        if outputs.video is not None:
            if self._write_frame is None:
                writer = video_writer(outputs.video, self._frame_rate, image.shape[1::-1])
                self._write_frame = self._stack.enter_context(writer)
            self._write_frame(image)
        if outputs.keypoints is not None:
            image_id = outputs.image_id if frame.number is None else frame.number
            entries = self._entries.setdefault(outputs.keypoints, [])
            for person in people:  # COCO's results, with the file's name and the box added
                joints = np.column_stack([person.joints, person.scores]).ravel()
                entries.append(
                    {
                        "image_id": image_id,
                        "file_name": frame.source.name,
                        "category_id": PERSON_CATEGORY,
                        "keypoints": _rounded(joints),
                        "score": round(person.score, 5),
                        "bbox": _rounded(person.box),
                    }
                )

    def close(self) -> None:
        """Complete the files."""
        self._stack.close()
        for file, entries in self._entries.items():
            write_bytes(file, json.dumps(entries, allow_nan=False).encode())


def _rounded(numbers: np.ndarray) -> list[float]:
    return np.nan_to_num(numbers.astype(np.float64)).round(4).tolist()  # JSON has no NaN
