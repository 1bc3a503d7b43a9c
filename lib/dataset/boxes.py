"""Files of people's boxes: by the image's name, COCO detections, or COCO's annotation."""

from collections.abc import Sequence
from math import inf
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import join_names, shorten

PERSON_CATEGORY = 1  # of COCO


class BoxFile:
    """Boxes by image or video, as `read_boxes` reads them.

    An image is found by its name with folders, by its bare name with or without suffix, or, as
    COCO's are, by the number in its name. The boxes of a video hold for all frames, or, with
    `image_id`, for that frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # name, or image_id of entries without a name -> (image_id, box [5]) of each person
        self._people: dict[str | int, list[tuple[int | None, np.ndarray]]] = {}
        self._bare: dict[str, str | None] = {}  # name without folders -> name, None if several

    def add(self, name: str | int, image_id: int | None, boxes: list[np.ndarray]) -> None:
        """Add boxes (x, y, width, height, score), or none, of an image."""
        if isinstance(name, str) and name not in self._people:
            bare = PureWindowsPath(name).name  # without folders, also those after `/`
            self._bare[bare] = None if bare in self._bare else name
        self._people.setdefault(name, []).extend((image_id, box) for box in boxes)

    def boxes_of(self, name: str, frame: int | None = None, min_score: float = -inf) -> np.ndarray:
        """Boxes (x, y, width, height, score), float64 [N, 5], of an image or a video's frame."""
        people = self._find(name) or []
        chosen = [box for number, box in people if frame is None or number in (None, frame)]
        boxes = np.reshape(chosen, (-1, 5))
        return boxes[boxes[:, 4] >= min_score]

    def image_id(self, name: str) -> int | None:
        """COCO's number of an image, None if the file does not have it."""
        return next((number for number, _ in self._find(name) or ()), None)

    def mentions(self, names: Sequence[str]) -> bool:
        """Whether the file mentions any of the images and videos of these names."""
        return any(self._find(name) is not None for name in names)

    def check(self, names: Sequence[str]) -> None:
        """UserError if the file mentions none of the images and videos of these names."""
        if not self.mentions(names):
            known = join_names([str(key) for key in self._people]) or "nothing"
            raise UserError(f"{self.path}: has boxes of {known}, not of {join_names(names)}")

    def _find(self, name: str) -> list[tuple[int | None, np.ndarray]] | None:
        path = PurePosixPath(name)
        number = int(path.stem) if path.stem.isdecimal() else name
        keys = (name, path.name, self._bare.get(path.name) or name, path.stem, number)
        return next((self._people[key] for key in keys if key in self._people), None)


def read_boxes(path: str | Path) -> BoxFile:
    """Read boxes by image, a list of COCO detections, or an annotation file of COCO.

    By image: `{name: [[x, y, width, height] or [x, y, width, height, score], ...]}`. A detection
    has `bbox`, `score` (default: 1), and `image_id` or `file_name` or both; `image_id` of a video
    is the frame's number from 0. Those of another `category_id` than a person's, and annotated
    crowds, are ignored. UserError names the entry that is wrong.
    """
    content = read_json(path)
    file = BoxFile(Path(path))
    if _are_entries(content):
        content = {"annotations": content}
    if isinstance(content, dict) and _are_entries(content.get("annotations")):
        _add_detections(file, content)
    elif isinstance(content, dict) and all(isinstance(boxes, list) for boxes in content.values()):
        for name, boxes in content.items():
            where = f"{path}: {shorten(repr(name))}"
            file.add(name, None, [_box(box, None, where) for box in boxes])
    else:
        raise UserError(f"{path}: should map names to lists of boxes, or list COCO detections")
    return file


def _are_entries(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(entry, dict) for entry in content)


def _add_detections(file: BoxFile, content: dict[str, Any]) -> None:
    """Add the people in COCO's `annotations`, by their names in `images` if there are any."""
    for field in ("images", "categories"):
        if not _are_entries(content.get(field, [])):
            raise UserError(f"{file.path}: `{field}` should be a list of objects, as in COCO")
    names = {str(_id(image, "id")): image.get("file_name") for image in content.get("images", [])}
    for name in names.values():
        if isinstance(name, str):
            file.add(name, None, [])  # it may have no people
    person, entries = person_category(content), content["annotations"]
    people = [_id(entry, "category_id") in (None, person) for entry in entries]
    if entries and not any(people):
        raise UserError(f"{file.path}: no entry is of a person, `category_id` {person}")
    for index, entry in enumerate(entries):
        if not people[index] or entry.get("iscrowd"):
            continue
        where, image_id = f"{file.path}: entry {index}", _id(entry, "image_id")
        # An image_id may be a name, too.
        name = entry.get("file_name") or names.get(str(image_id)) or image_id
        if not isinstance(name, str | int):
            raise UserError(f"{where}: needs `file_name`, or `image_id`, a whole number")
        number = image_id if isinstance(image_id, int) else None
        file.add(name, number, [_box(entry.get("bbox"), entry.get("score"), where)])


def person_category(content: dict[str, Any]) -> Any:
    """Return the id of the category `person`, or of the only one; by default COCO's."""
    ids = {str(entry.get("name")): _id(entry, "id") for entry in content.get("categories", [])}
    if ids:
        return ids.get("person", next(iter(ids.values())) if len(ids) == 1 else PERSON_CATEGORY)
    counted_from_0 = any(_id(entry, "category_id") == 0 for entry in content["annotations"])
    return PERSON_CATEGORY - counted_from_0


def _id(entry: dict[str, Any], field: str) -> Any:
    """Return an id, as a whole number also if it is written as text or with a fraction."""
    text = str(entry.get(field)).removesuffix(".0")
    return int(text) if text.isdecimal() and len(text) < 20 else entry.get(field)


def _box(numbers: Any, score: Any, where: str) -> np.ndarray:
    """Return a box of four or five numbers, which may be text, as five; the last is its score."""
    try:
        *sides, score = numbers if len(numbers) == 5 else [*numbers, score]
        box = np.array([*sides, 1.0], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        box = np.empty(0)
    if box.shape != (5,):
        shown = shorten(repr(numbers))
        raise UserError(f"{where}: a box should be [x, y, width, height] in pixels, not {shown}")
    try:
        box[4] = 1.0 if score is None else score
    except (TypeError, ValueError, OverflowError):
        box[4] = np.nan
    if not np.isfinite(box[4]):
        raise UserError(f"{where}: `score` should be a number, not {shorten(repr(score))}")
    return box
