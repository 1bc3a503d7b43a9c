"""Files of people's boxes: by the image's name, or a list of COCO detections."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import join_names, shorten

PERSON_CATEGORY = 1  # of COCO


class BoxFile:
    """Boxes by image or video, as `read_boxes` reads them.

    An image is found by its name with folders, by its bare name, or, as COCO's are, by the number
    in its name. The boxes of a video hold for all frames, or, with `image_id`, for that frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # name, or image_id of entries without a name -> (image_id, box [5]) of each person
        self._people: dict[str | int, list[tuple[int | None, np.ndarray]]] = {}

    def add(self, name: str | int, image_id: int | None, boxes: list[np.ndarray]) -> None:
        """Add boxes (x, y, width, height, score), or none, of an image."""
        self._people.setdefault(name, []).extend((image_id, box) for box in boxes)

    def boxes_of(
        self, name: str, frame: int | None = None, min_score: float | None = None
    ) -> np.ndarray:
        """Boxes (x, y, width, height, score), float64 [N, 5], of an image or a video's frame."""
        people = self._people.get(self._key(name), [])
        chosen = [box for number, box in people if frame is None or number in (None, frame)]
        boxes = np.reshape(chosen, (-1, 5))
        return boxes if min_score is None else boxes[boxes[:, 4] >= min_score]

    def image_id(self, name: str) -> int | None:
        """COCO's number of an image, in the file or its name."""
        people = self._people.get(self._key(name), [])
        return next((number for number, _ in people if number is not None), number_in(name))

    def has(self, name: str) -> bool:
        """Whether the file mentions that image or video."""
        return self._key(name) in self._people

    def check(self, names: Sequence[str]) -> None:
        """UserError if the file mentions none of the images and videos of these names."""
        if not any(map(self.has, names)):
            known = join_names([str(key) for key in self._people]) or "nothing"
            raise UserError(f"{self.path}: has boxes of {known}, not of {join_names(names)}")

    def _key(self, name: str) -> str | int:
        keys: tuple[str | int | None, ...] = (name, PurePosixPath(name).name, number_in(name))
        return next((key for key in keys if key is not None and key in self._people), name)


def number_in(name: str) -> int | None:
    """Return the number that a file is named, as COCO's images are; None if it is not one."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isdecimal() else None


def read_boxes(path: str | Path) -> BoxFile:
    """Read `{name: [[x, y, width, height] or [x, y, width, height, score], ...]}` or COCO's list.

    An entry of COCO's list has `bbox`, `score` (default: 1), and `image_id` or `file_name` or both;
    `image_id` of a video is the frame's number from 0. Entries of another `category_id` than a
    person's are ignored. UserError names the entry that is wrong.
    """
    content = read_json(path)
    file = BoxFile(Path(path))
    if isinstance(content, dict) and all(isinstance(boxes, list) for boxes in content.values()):
        for name, boxes in content.items():
            where = f"{path}: {shorten(repr(name))}"
            file.add(name, None, [_box(box, 1.0, where) for box in boxes])
    elif isinstance(content, list) and all(isinstance(entry, dict) for entry in content):
        for index, entry in enumerate(content):
            if entry.get("category_id", PERSON_CATEGORY) == PERSON_CATEGORY:
                _add_detection(file, entry, f"{path}: entry {index}")
    else:
        raise UserError(f"{path}: should map names to lists of boxes, or list COCO detections")
    return file


def _add_detection(file: BoxFile, entry: dict[str, Any], where: str) -> None:
    name, image_id = entry.get("file_name"), entry.get("image_id")
    key = image_id if name is None else name
    if not isinstance(key, str | int) or not isinstance(image_id, int | None):
        raise UserError(f"{where}: needs `file_name`, or `image_id`, a whole number")
    file.add(key, image_id, [_box(entry.get("bbox"), entry.get("score", 1.0), where)])


def _box(numbers: Any, score: Any, where: str) -> np.ndarray:
    """Return a box of four or five numbers as five."""
    try:
        box = np.array([*numbers, score] if len(numbers) == 4 else numbers, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        box = np.empty(0)
    if box.shape != (5,) or not np.isfinite(box[4]):
        shown = shorten(f"{numbers!r} with score {score!r}")
        raise UserError(f"{where}: a box should be [x, y, width, height] in pixels, not {shown}")
    return box
