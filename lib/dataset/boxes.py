"""Boxes of people in a file: by the picture's name, or as a list of COCO detections."""

import math
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import brief, some

_PERSON = 1  # COCO's category


class BoxFile:
    """People's boxes by picture, as `read_boxes` finds them in a file.

    A picture is known by its name with folders, by its bare name, or, as COCO's are, by the number
    that its bare name without ending is; a video's frames by its name and, where the file gives
    `image_id`, their number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.image_ids: dict[str, int] = {}  # by name, where the file says both
        self._boxes: dict[str | int | tuple[str, int], list[list[float]]] = {}
        self._names: set[str] = set()

    def add(self, box: list[float], name: str | None, image_id: int | None) -> None:
        """Note a person's box (x, y, width, height, score)."""
        if name is None:
            self._boxes.setdefault(image_id, []).append(box)
            return
        self.mention(name)
        self._boxes[name].append(box)
        if image_id is not None:
            self.image_ids[name] = image_id
            self._boxes.setdefault((name, image_id), []).append(box)

    def mention(self, name: str) -> None:
        """Note that the file speaks of a picture, be it without people."""
        self._names.add(name)
        self._boxes.setdefault(name, [])

    def of(self, name: str, number: int | None = None) -> np.ndarray:
        """Boxes (x, y, width, height, score), float64 [N, 5], of a picture or a video's frame."""
        key = self._key(name)
        if number is not None and key in self.image_ids:
            key = (key, number)
        return np.array(self._boxes.get(key, []), dtype=np.float64).reshape(-1, 5)

    def image_id(self, name: str) -> int | None:
        """The number by which the file knows a picture; None where it gives none."""
        key = self._key(name)
        return key if isinstance(key, int) else self.image_ids.get(key)

    def knows(self, name: str) -> bool:
        """Whether the file speaks of that picture or video at all."""
        return self._key(name) in self._boxes

    def check(self, names: Iterable[str]) -> None:
        """UserError where the file speaks of none of the pictures and videos of these names."""
        names = list(names)
        if not any(map(self.knows, names)):
            theirs = some(sorted(self._names) or [str(key) for key in self._boxes])
            raise UserError(
                f"{self.path}: has no box for any input: it speaks of {theirs or 'nobody'}; "
                f"the input is {some(names)}"
            )

    def _key(self, name: str) -> str | int:
        path = PurePosixPath(name)
        if name in self._boxes:
            return name
        if path.name in self._boxes:
            return path.name
        return int(path.stem) if path.stem.isdecimal() else name


def read_boxes(path: str | Path) -> BoxFile:
    """Read `{name: [[x, y, width, height] or [x, y, width, height, score], ...]}` or COCO's list.

    An entry of COCO's list has `bbox`, `score` (1 where it lacks) and `image_id` or `file_name` or
    both; entries of another `category_id` than 1, a person, are left out. The boxes of a video's
    name hold for all its frames, unless entries give both, `image_id` being the frame's number from
    0. UserError names file and entry where something is wrong.
    """
    path = Path(path)
    content = read_json(path)
    boxes = BoxFile(path)
    if isinstance(content, dict):
        for name, people in content.items():
            where = f"{path}: {brief(repr(name))}"
            if not isinstance(people, list):
                raise UserError(f"{where} should be a list of boxes")
            boxes.mention(name)
            for person in people:
                boxes.add(_box(person, 1.0, where), name, None)
    elif isinstance(content, list):
        for index, entry in enumerate(content):
            _add_detection(boxes, entry, f"{path}: entry {index}")
    else:
        raise UserError(f"{path}: should map names to lists of boxes, or list COCO detections")
    return boxes


def _add_detection(boxes: BoxFile, entry: Any, where: str) -> None:
    if not isinstance(entry, dict) or "bbox" not in entry:
        raise UserError(f"{where} should be an object with `image_id` or `file_name`, and `bbox`")
    if entry.get("category_id", _PERSON) != _PERSON:
        return
    name, image_id = entry.get("file_name"), entry.get("image_id")
    if not isinstance(name, str | None) or (name is None and image_id is None):
        raise UserError(f"{where}: needs `image_id`, a whole number, or `file_name`, a text")
    if image_id is not None and type(image_id) is not int:
        raise UserError(f"{where}: `image_id` should be a whole number")
    boxes.add(_box(entry["bbox"], entry.get("score", 1.0), where), name, image_id)


def _box(numbers: Any, score: Any, where: str) -> list[float]:
    """The five numbers of a box of four or five."""
    listed = numbers if isinstance(numbers, list) else []
    five = [*listed, score] if len(listed) == 4 else listed
    if len(five) != 5 or not all(type(number) in (int, float) for number in five):
        raise UserError(
            f"{where}: a box should be [x, y, width, height] in pixels, it is "
            f"{brief(repr(numbers))}"
        )
    try:
        box = [float(number) for number in five]
    except OverflowError:
        raise UserError(f"{where}: a box holds a number beyond all pictures") from None
    if not math.isfinite(box[4]):
        raise UserError(f"{where}: the score of a box should be a finite number")
    return box
