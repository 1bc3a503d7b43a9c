"""People that were found in a picture: their joints, drawn and as COCO writes them down."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lib.dataset.skeleton import Skeleton
from lib.utils.drawing import paint_person, person_thickness
from lib.utils.files import replacing

_PERSON = 1  # COCO's category


@dataclass(frozen=True, eq=False)
class Person:
    """A person in a picture; coordinates are 0-based pixels."""

    joints: np.ndarray  # float64 [J, 2], (x, y)
    scores: np.ndarray  # float32 [J], the heatmaps' peaks: about 0, not found, to 1
    box: np.ndarray  # float64 [4]: x, y, width, height, as given
    box_score: float = 1.0

    @property
    def score(self) -> float:
        """How sure this person is, as COCO ranks people: box score times mean joint score."""
        return self.box_score * float(np.nan_to_num(self.scores).mean())


class FindsJoints(Protocol):
    """What finds people's joints in many pictures: `lib.predictor.Predictor`."""

    skeleton: Skeleton
    batch_size: int

    def many(
        self,
        pictures: Iterable[tuple[np.ndarray, np.ndarray | None]],
        batch_size: int | None = None,
    ) -> Iterator[list[Person]]:
        """Yield the people of each picture uint8 RGB [H, W, 3] with its boxes [N, 4 or 5]."""
        ...


def paint_people(image: np.ndarray, people: Sequence[Person], skeleton: Skeleton) -> None:
    """Draw people into the image itself; those who are not sure are drawn first, and so below."""
    for person in sorted(people, key=lambda person: person.score):
        corners = np.stack([person.box[:2], person.box[:2] + person.box[2:]])
        thickness = person_thickness(corners, image.shape)
        paint_person(image, person.joints, person.scores, skeleton, thickness)


def coco_entry(person: Person, image_id: int, file_name: str) -> dict:
    """A person in COCO's layout of results, beside it the file's name and the box (`bbox`)."""
    numbers = np.column_stack([person.joints, person.scores]).ravel()
    return {
        "image_id": image_id,
        "file_name": file_name,
        "category_id": _PERSON,
        "keypoints": _rounded(numbers),
        "score": round(person.score, 5),
        "bbox": _rounded(person.box),
    }


def write_coco(path: Path, entries: Iterable[dict]) -> None:
    """Write COCO results, a person a line; UserError where they cannot be written."""
    lines = (json.dumps(entry, allow_nan=False) for entry in entries)
    with replacing(path) as aside:
        aside.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def _rounded(numbers: np.ndarray) -> list[float]:
    """To a thousandth of a pixel, more than anyone can see; JSON has no nan."""
    return np.nan_to_num(numbers.astype(np.float64)).round(4).tolist()
