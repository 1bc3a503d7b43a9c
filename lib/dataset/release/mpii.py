"""Reader of the official MPII release, `mpii_human_pose_v1_u12_1.mat`.

Coordinates stay as in the release: (x, y) in pixels, 1-based. Who is included:

- Training people need an annotated joint, a position and a scale. `single_person` does not matter:
  the published valid.json has other people too.
- Test people need a position and a scale, and `single_person` must list them: the benchmark scores
  these 7,247 only (anibali/eval-mpii-pose, issue 18), and the published test.json has as many.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.dataset.skeleton import MPII
from lib.dataset.transforms import PIXELS_PER_SCALE
from lib.utils.errors import UserError
from lib.utils.mat import read_mat

JOINTS = MPII.num_joints


@dataclass(frozen=True)
class Person:
    """A person of a release; coordinates are 1-based pixels of `image`."""

    image: str
    center: tuple[float, float]
    scale: float  # the person's height in units of 200 pixels
    joints: np.ndarray  # float [16, 2], (-1, -1) if not annotated
    annotated: np.ndarray  # bool [16]
    head_box: tuple[float, ...] | None  # x1, y1, x2, y2 if known
    video: int | None

    def record(self) -> dict[str, Any]:
        """Return the entry of annot/<set>.json."""
        return {
            "image": self.image,
            "center": list(self.center),
            "scale": self.scale,
            "joints": self.joints.tolist(),
            "joints_vis": self.annotated.astype(int).tolist(),
        }


@dataclass
class Release:
    """The people of a release in its order, and how many are excluded, by reason."""

    train: list[Person] = field(default_factory=list)
    test: list[Person] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)


def read_release(path: Path) -> Release:
    """Read the release's .mat file; UserError if it is missing, damaged or another file."""
    root = next(_structs(read_mat(path).get("RELEASE", 0)), None)
    if root is None:
        raise UserError(f"{path} has no struct RELEASE: pass MPII's mpii_human_pose_v1_u12_1.mat")
    images = list(_structs(root, "annolist"))
    is_train, listed = (np.ravel(_get(root, name)) for name in ("img_train", "single_person"))
    if not len(images) == len(is_train) == len(listed):
        counts = f"{len(images)}, {len(is_train)} and {len(listed)} entries"
        raise UserError(
            f"{path}: annolist, img_train, single_person have {counts}: download the release again"
        )
    release = Release()
    for image, train, entry in zip(images, is_train, listed, strict=True):
        single = {_number(item) for item in np.ravel(entry)}
        _read_image(image, _number(train) > 0, single, release)
    return release


def _structs(value: Any, *names: str) -> Iterator[np.void]:
    """Yield the structs of a struct array or of a cell of structs; nothing for other values.

    With names, yield those in the field of the first name of each, and so on.
    """
    values = np.ravel(value)
    if values.dtype == object:
        for item in values:
            yield from _structs(item, *names)
    elif values.dtype.names and names:
        for struct in values:
            yield from _structs(_get(struct, names[0]), *names[1:])
    elif values.dtype.names:
        yield from values


def _get(struct: np.void | None, name: str) -> np.ndarray:
    """Return a field of a struct; empty if there is no such field or no struct."""
    return np.empty(0) if struct is None or name not in (struct.dtype.names or ()) else struct[name]


def _number(value: Any) -> float:
    """Return the first number of a MATLAB value; nan if it is empty or text."""
    array = np.ravel(value)
    if array.size and array.dtype == object:
        return _number(array[0])
    return float(array[0]) if array.size and array.dtype.kind in "buif" else np.nan


def _numbers(struct: np.void | None, *names: str) -> tuple[float, ...] | None:
    """Return these fields as numbers, None if one of them is missing or not finite."""
    numbers = tuple(_number(_get(struct, name)) for name in names)
    return numbers if np.isfinite(numbers).all() else None


def _read_image(image: np.void, train: bool, single: set[float], release: Release) -> None:
    """Add the people of an image; `single` is its entry of single_person, which counts from 1."""
    split, people = ("training", release.train) if train else ("test", release.test)
    no_joints = np.zeros((JOINTS, 2)), np.zeros(JOINTS, dtype=bool)
    for number, rect in enumerate(_structs(image, "annorect"), start=1):
        joints, annotated = _read_joints(rect) if train else no_joints
        if train and not annotated.any():
            release.excluded["training people without joints"] += 1
        elif not train and number not in single:
            release.excluded["test people who are not in single_person"] += 1
        elif person := _read_person(image, rect, joints, annotated):
            people.append(person)
        else:
            release.excluded[f"{split} people without image name, position or scale"] += 1


def _read_joints(rect: np.void) -> tuple[np.ndarray, np.ndarray]:
    """Return joints [16, 2] and which are annotated [16], whether visible or occluded."""
    joints = np.full((JOINTS, 2), -1.0)
    annotated = np.zeros(JOINTS, dtype=bool)
    for point in _structs(rect, "annopoints", "point"):
        numbers = _numbers(point, "x", "y", "id")
        if numbers is not None and numbers[2] in range(JOINTS):
            joint = int(numbers[2])
            joints[joint], annotated[joint] = numbers[:2], True
    return joints, annotated


def _read_person(
    image: np.void, rect: np.void, joints: np.ndarray, annotated: np.ndarray
) -> Person | None:
    """Return the person, None without image name, position or scale."""
    center = _numbers(next(_structs(rect, "objpos"), None), "x", "y")
    scale, video = _number(_get(rect, "scale")), _number(_get(image, "vididx"))
    name = np.ravel(_get(next(_structs(image, "image"), None), "name"))
    box = _numbers(rect, "x1", "y1", "x2", "y2")
    # x = -1 is MPII's sign of a missing position; a person of at most a pixel has no crop.
    if center is None or center[0] == -1 or not 1 < scale * PIXELS_PER_SCALE < np.inf:
        return None
    if not name.size:
        return None
    return Person(
        image=str(name[0]),
        center=(center[0], center[1]),
        scale=scale,
        joints=joints,
        annotated=annotated,
        head_box=box if box and box[:2] != box[2:] else None,
        video=int(video) if np.isfinite(video) else None,
    )
