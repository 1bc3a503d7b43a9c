"""Annotated people, independent of the format of their files."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.dataset.transforms import MAX_COORDINATE
from lib.utils.errors import UserError
from lib.utils.text import join_names


@dataclass(frozen=True, eq=False)
class Record:
    """One annotated person; coordinates are 0-based pixels of the image."""

    image: str  # name inside the folder or zip file of images
    center: np.ndarray  # float64 [2], (x, y)
    scale: np.ndarray  # float64 [2], width and height of the box in units of 200 pixels
    joints: np.ndarray  # float32 [J, 2], (x, y)
    visible: np.ndarray  # float32 [J], 1 if the joint is annotated, else 0
    area: float = 0.0  # of the annotated person, in pixels, 0 if unknown
    score: float = 1.0  # of the box, if a detector found it
    side: float = 0.0  # the longer one of the annotated box, in pixels


def column(records: Sequence[Record], name: str) -> np.ndarray:
    """Return a field of all records, [N, ...]; there is at least one."""
    return np.stack([getattr(record, name) for record in records])


@dataclass(frozen=True)
class Boxes:
    """Which boxes a reader takes where the annotation does not say what to crop.

    They grow to the aspect ratio of `size`, (width, height) of the crop. `file` has detections to
    use instead of the annotated boxes, those with `min_score` or more.
    """

    size: tuple[int, int]
    file: Path | None = None
    min_score: float = 0.0


class People(Sequence[Record]):
    """One or more records as a few arrays, which processes share, also those that are spawned."""

    def __init__(self, records: Sequence[Record]) -> None:
        names = np.array([record.image.encode(errors="surrogateescape") for record in records])
        fields = ("center", "scale", "joints", "visible", "area", "score", "side")
        columns = (column(records, field) for field in fields)
        self._columns = [names.view(np.uint8).reshape(len(names), -1), *columns]
        self._shared: list[torch.Tensor] = []

    def __getstate__(self) -> list[torch.Tensor]:
        if not self._shared:  # tensors in shared memory are sent as handles
            self._shared = [torch.from_numpy(column).share_memory_() for column in self._columns]
            self._columns = [tensor.numpy() for tensor in self._shared]
        return self._shared

    def __setstate__(self, shared: list[torch.Tensor]) -> None:
        self._columns, self._shared = [tensor.numpy() for tensor in shared], []

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        name, *rest = (column[index] for column in self._columns)
        return Record(name.tobytes().rstrip(b"\0").decode(errors="surrogateescape"), *rest)


@dataclass(frozen=True)
class Annotation:
    """The people of a set, in the order of its file; any sequence of records becomes `People`.

    `path` is that file. `gt_path` is the ground truth of metrics that need more than the records,
    None if there is none. `folder` has the images, relative to DATASET.ROOT; a zip file is
    `<folder>.zip`.
    """

    records: Sequence[Record]
    path: Path
    gt_path: Path | None = None
    folder: str = "images"

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", People(self.records))

    @property
    def images(self) -> list[str]:
        """The names of the images, each once, sorted."""
        return sorted({record.image for record in self.records})


def shared_images(train: Annotation, test: Annotation) -> str | None:
    """Return a warning if there are people of both sets on the same images."""
    ours, theirs = (set(map(posixpath.normpath, people.images)) for people in (train, test))
    text = (
        f"DATASET.TRAIN_SET and TEST_SET share {len(ours & theirs)} of {len(theirs)} test images "
        f"({join_names(sorted(ours & theirs))}), so that scores say little about new images: "
        f"remove their people from {train.path}"
    )
    return text if train.folder == test.folder and ours & theirs else None


def read_numbers(
    entry: dict, key: str, shape: tuple[int, ...], where: str, needed: np.ndarray | bool = True
) -> np.ndarray:
    """Read finite numbers of an entry; rows that are not `needed` may be null or nan, and become 0.

    UserError, which begins with `where`, if they are others.
    """
    value = entry.get(key)
    if isinstance(value, list) and len(shape) == 2 and (None in value or [] in value):
        value = [row or [None] * shape[1] for row in value]
    try:
        numbers = np.asarray(value, dtype=np.float64)  # null is nan
        valid = np.abs(numbers) < MAX_COORDINATE  # false for nan
        if numbers.shape == shape and (valid | ~np.asarray(needed)[..., None]).all():
            numbers[~valid] = 0
            return numbers
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(
        f"{where}: `{key}` must be finite numbers of shape {shape}, within {MAX_COORDINATE:.0f}"
    )
