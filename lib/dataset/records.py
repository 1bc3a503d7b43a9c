"""Annotated people, independent of the format of their files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
