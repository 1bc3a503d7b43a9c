"""Reading the official MPII release, `mpii_human_pose_v1_u12_1.mat`.

Coordinates stay as the release has them: (x, y) in pixels, 1-based. Who is taken:

- Training people need an annotated joint, a position and a scale. Whether they stand apart from
  others (`single_person`) does not matter: the published valid.json has such people too.
- Test people need a position and a scale, and must stand apart: the benchmark scores these 7,247
  alone (anibali/eval-mpii-pose, issue 18), and the published test.json has as many.
"""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from lib.dataset.skeleton import MPII
from lib.dataset.transforms import PIXELS_PER_SCALE
from lib.utils.errors import UserError

JOINTS = MPII.num_joints


@dataclass(frozen=True)
class Person:
    """A person of the release.

    `center` (x, y), `joints` float [16, 2] and `head_box` (x1, y1, x2, y2) are 1-based pixels of
    `image`; `scale` times 200 pixels is the person's height; `annotated` is bool [16], and joints
    that are not annotated lie at (-1, -1). `head_box` and `video` are None where unknown.
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
    """The people of the release in its order, and how many were left out, by reason."""

    train: list[Person] = field(default_factory=list)
    test: list[Person] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read_release(path: Path) -> Release:
    """Read the release's .mat file.

    UserError where it is no such file: missing, damaged, of MATLAB 7.3, or without the structs.
    """
    root = next(_structs(_load_mat(path).get("RELEASE")), None)
    if root is None:
        raise UserError(f"{path} has no struct RELEASE: give mpii_human_pose_v1_u12_1.mat of MPII")
    images = list(_structs(_get(root, "annolist")))
    is_train = _one_an_image(root, "img_train", len(images), path)
    apart = [None] * len(images)
    if "single_person" in root.dtype.names:
        apart = _one_an_image(root, "single_person", len(images), path)
    release = Release()
    for number, (image, train, people_apart) in enumerate(
        zip(images, is_train, apart, strict=True), start=1
    ):
        where = f"{path}: annolist({number})"
        if _number(train):
            _read_train_image(image, release, where)
        else:
            _read_test_image(image, people_apart, release, where)
    if not release.train:
        raise UserError(f"{path} has no annotated training people: download the release again")
    return release


def read_apart(path: Path, read: Callable[[Path], Release] = read_release) -> Release:
    """Read the release in a process of its own: on some damaged bytes scipy ends the process."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(read, path).result()
    except BrokenProcessPool as error:
        raise UserError(f"{path} is damaged, reading it crashes: download it again") from error


def _load_mat(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is not there: give the release's .mat file as --mat")
    with path.open("rb") as file:
        start = file.read(1024)
    if b"\x89HDF" in start:
        raise UserError(f"{path} is of MATLAB 7.3 (HDF5): give the original, or save it with -v7")
    try:
        # Arrays as MATLAB has them, always two-dimensional: no case of one person or of many.
        return loadmat(path, appendmat=False, variable_names=["RELEASE"])
    except Exception as error:  # scipy raises a dozen types on damaged bytes
        raise UserError(
            f"{path} is no whole MATLAB file ({type(error).__name__}: {error}): download it again"
        ) from error


def _structs(value: Any) -> Iterator[np.void]:
    """Yield each struct of a struct array or of a cell of structs; nothing for anything else."""
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names:
        yield from value.ravel()
    elif value.dtype == object:
        for item in value.ravel():
            yield from _structs(item)


def _get(struct: np.void | None, name: str) -> Any:
    """Return a field of a struct, None where there is no such field or no struct."""
    return None if struct is None or name not in struct.dtype.names else struct[name]


def _one_an_image(root: np.void, name: str, images: int, path: Path) -> np.ndarray:
    """Return a field that has a value for each image; UserError where it has not."""
    value = _get(root, name)
    values = np.ravel([] if value is None else value)
    if len(values) != images:
        raise UserError(
            f"{path}: RELEASE has {images} images in annolist and {len(values)} entries in {name}: "
            "download the release again"
        )
    return values


def _number(value: Any) -> float | None:
    """Return the first number of a MATLAB value, None where it is empty, text or not finite."""
    array = np.asarray(value)
    if array.size == 0:
        return None
    if array.dtype == object:
        first = array.flat[0]
        return None if first is None else _number(first)
    if array.dtype.kind not in "buif":
        return None
    number = float(array.flat[0])
    return number if np.isfinite(number) else None


def _numbers(struct: np.void | None, names: Sequence[str]) -> tuple[float, ...] | None:
    """Return these fields as numbers, None where one of them is missing."""
    numbers = tuple(_number(_get(struct, name)) for name in names)
    return None if None in numbers else numbers


def _read_train_image(image: np.void, release: Release, where: str) -> None:
    for rect in _structs(_get(image, "annorect")):
        joints, annotated = _read_joints(rect, where)
        if not annotated.any():
            release.left_out["training people without joints"] += 1
        elif person := _read_person(image, rect, joints, annotated, where):
            release.train.append(person)
        else:
            release.left_out["training people without position or scale"] += 1


def _read_test_image(image: np.void, apart: Any, release: Release, where: str) -> None:
    # `apart` counts people from 1; without the field nobody says who stands apart.
    chosen = None if apart is None else {_number(item) for item in np.ravel(apart)}
    hidden = np.zeros((JOINTS, 2)), np.zeros(JOINTS, dtype=bool)
    for number, rect in enumerate(_structs(_get(image, "annorect")), start=1):
        if chosen is not None and number not in chosen:
            release.left_out["test people who do not stand apart"] += 1
        elif person := _read_person(image, rect, *hidden, where):
            release.test.append(person)
        else:
            release.left_out["test people without position or scale"] += 1


def _read_joints(rect: np.void, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return joints [16, 2] and which are annotated [16]; `is_visible` is another matter."""
    joints = np.full((JOINTS, 2), -1.0)
    annotated = np.zeros(JOINTS, dtype=bool)
    for annopoints in _structs(_get(rect, "annopoints")):
        for point in _structs(_get(annopoints, "point")):
            numbers = _numbers(point, ("x", "y", "id"))
            if numbers is None:
                continue
            x, y, joint = numbers
            if joint not in range(JOINTS):
                raise UserError(f"{where} has joint id {joint:g}, not 0 to {JOINTS - 1}: mend it")
            joints[int(joint)] = x, y
            annotated[int(joint)] = True
    return joints, annotated


def _read_person(
    image: np.void, rect: np.void, joints: np.ndarray, annotated: np.ndarray, where: str
) -> Person | None:
    """Return the person, None without position or scale; UserError without an image's name."""
    center = _numbers(next(_structs(_get(rect, "objpos")), None), ("x", "y"))
    scale = _number(_get(rect, "scale"))
    if center is None or scale is None:
        return None
    # x = -1 is MPII's sign of a missing position; a person of a pixel at most makes no crop.
    if center[0] == -1 or scale * PIXELS_PER_SCALE <= 1:
        return None
    name = np.ravel(_get(next(_structs(_get(image, "image")), None), "name"))
    if name.dtype.kind != "U" or not name.size or not str(name[0]).strip():
        raise UserError(f"{where} has people but no image.name: mend it or download it again")
    video = _number(_get(image, "vididx"))
    return Person(
        image=str(name[0]).strip(),
        center=center,
        scale=scale,
        joints=joints,
        annotated=annotated,
        head_box=_numbers(rect, ("x1", "y1", "x2", "y2")),
        video=None if video is None else int(video),
    )
