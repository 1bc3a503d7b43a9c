"""Annotated people, independent of the format of their files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.dataset.transforms import PIXELS_PER_SCALE


@dataclass(frozen=True, eq=False)
class Record:
    """One annotated person; coordinates are 0-based pixels of the image."""

    image: str  # name inside `images/` or `images.zip`
    center: np.ndarray  # float64 [2], (x, y)
    scale: np.ndarray  # float64 [2], width and height of the box in units of 200 pixels
    joints: np.ndarray  # float32 [J, 2], (x, y)
    visible: np.ndarray  # float32 [J], 1 if the joint is annotated, else 0


@dataclass(frozen=True)
class Annotation:
    """The people of a set, in the order of its file.

    `path` is that file. `gt_path` is the ground truth of metrics that need more than the records,
    None if there is none.
    """

    records: list[Record]
    path: Path
    gt_path: Path | None = None


def fits_its_box(record: Record) -> bool:
    """Whether the visible joints are centered in the box (the HRNet family's `select_data`).

    The more joints are visible, the closer must their mean be to the center.
    """
    count = record.visible.sum()
    if count == 0:
        return False
    mean = record.joints[record.visible > 0].mean(axis=0, dtype=np.float64)
    area = record.scale.prod() * PIXELS_PER_SCALE**2
    similarity = np.exp(-np.square(mean - record.center).sum() / (2 * 0.2**2 * area))
    return bool(similarity > 0.45 + 0.2 / 16 * (count - 1))
