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
    """A person of a release.

    `center` (x, y), `joints` float [16, 2] and `head_box` (x1, y1, x2, y2) are 1-based pixels of
    `image`; `scale` times 200 pixels is the person's height; `annotated` is bool [16], and joints
    that are not annotated are (-1, -1). `head_box` and `video` are None if unknown.
    """

    image: str
    center: tuple[float, float]
    scale: float
    joints: np.ndarray
    annotated: np.ndarray
    head_box: tuple[float, ...] | None
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
    """The people of a release in its order, and how many were left out, by reason."""

    train: list[Person] = field(default_factory=list)
    test: list[Person] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read_release(path: Path) -> Release:
    """Read the release's .mat file; UserError if it is missing, damaged or another file."""
    root = next(_structs(read_mat(path).get("RELEASE")), None)
    if root is None:
        raise UserError(f"{path} has no struct RELEASE: pass MPII's mpii_human_pose_v1_u12_1.mat")
    images = list(_structs(_get(root, "annolist")))
    is_train, listed = (np.ravel(_get(root, name)) for name in ("img_train", "single_person"))
    for name, values in (("img_train", is_train), ("single_person", listed)):
        if len(values) != len(images):
            raise UserError(
                f"{path}: RELEASE has {len(images)} images in annolist and {len(values)} entries "
                f"in {name}: download the release again"
            )
    release = Release()
    for index, image in enumerate(images):
        where = f"{path}: annolist({index + 1})"
        _read_image(image, _number(is_train[index]) > 0, listed[index], release, where)
    if not release.train:
        raise UserError(f"{path} has no annotated training people: download the release again")
    return release


def _structs(value: Any) -> Iterator[np.void]:
    """Yield each struct of a struct array or of a cell of structs; nothing for other values."""
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names:
        yield from value.ravel()
    elif value.dtype == object:
        for item in value.ravel():
            yield from _structs(item)


def _get(struct: np.void | None, name: str) -> np.ndarray:
    """Return a field of a struct; empty if there is no such field or no struct."""
    return np.empty(0) if struct is None or name not in (struct.dtype.names or ()) else struct[name]


def _number(value: Any) -> float:
    """Return the first number of a MATLAB value; nan if it is empty or text."""
    array = np.asarray(value)
    if array.size and array.dtype == object:
        return _number(array.flat[0])
    return float(array.flat[0]) if array.size and array.dtype.kind in "buif" else np.nan


def _numbers(struct: np.void | None, *names: str) -> tuple[float, ...] | None:
    """Return these fields as numbers, None if one of them is missing or not finite."""
    numbers = tuple(_number(_get(struct, name)) for name in names)
    return numbers if np.isfinite(numbers).all() else None


def _read_image(image: np.void, train: bool, listed: Any, release: Release, where: str) -> None:
    """Add the people of an image; `listed` is its entry of single_person, which counts from 1."""
    single = {_number(item) for item in np.ravel(listed)}
    kind, people = ("training", release.train) if train else ("test", release.test)
    no_joints = np.zeros((JOINTS, 2)), np.zeros(JOINTS, dtype=bool)
    for number, rect in enumerate(_structs(_get(image, "annorect")), start=1):
        joints, annotated = _read_joints(rect, where) if train else no_joints
        if train and not annotated.any():
            release.left_out["training people without joints"] += 1
        elif not train and number not in single:
            release.left_out["test people who are not in single_person"] += 1
        elif person := _read_person(image, rect, joints, annotated, where):
            people.append(person)
        else:
            release.left_out[f"{kind} people without position or scale"] += 1


def _read_joints(rect: np.void, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return joints [16, 2] and which are annotated [16], whether visible or occluded."""
    joints = np.full((JOINTS, 2), -1.0)
    annotated = np.zeros(JOINTS, dtype=bool)
    for annopoints in _structs(_get(rect, "annopoints")):
        for point in _structs(_get(annopoints, "point")):
            numbers = _numbers(point, "x", "y", "id")
            if numbers is None:
                continue
            x, y, joint = numbers
            if joint not in range(JOINTS):
                raise UserError(
                    f"{where} has joint id {joint:g}, not 0 to {JOINTS - 1}: correct it"
                )
            joints[int(joint)] = x, y
            annotated[int(joint)] = True
    return joints, annotated


def _read_person(
    image: np.void, rect: np.void, joints: np.ndarray, annotated: np.ndarray, where: str
) -> Person | None:
    """Return the person, None without position or scale; UserError without an image name."""
    center = _numbers(next(_structs(_get(rect, "objpos")), None), "x", "y")
    scale = _number(_get(rect, "scale"))
    # x = -1 is MPII's sign of a missing position; a person of at most a pixel has no crop.
    if center is None or center[0] == -1 or not 1 < scale * PIXELS_PER_SCALE < np.inf:
        return None
    name = np.ravel(_get(next(_structs(_get(image, "image")), None), "name"))
    if name.dtype.kind != "U" or not name.size or not str(name[0]).strip():
        raise UserError(f"{where} has people but no image.name: download the release again")
    video = _number(_get(image, "vididx"))
    return Person(
        image=str(name[0]).strip(),
        center=(center[0], center[1]),
        scale=scale,
        joints=joints,
        annotated=annotated,
        head_box=_numbers(rect, "x1", "y1", "x2", "y2"),
        video=int(video) if np.isfinite(video) else None,
    )
