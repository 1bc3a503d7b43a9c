"""Reading the official archive of Leeds Sports Pose extended (LSPET), its `joints.mat`.

`joints` is [14, 3, N]: x, y in pixels and whether the joint is annotated, of the person in the
middle of `im00001.jpg`, `im00002.jpg`, … What MPII's layout has besides is made of them:

- Pelvis and thorax lie between the hips and between the shoulders, where both are annotated.
- The annotated joints' box, its longer side, is the person's height; the position lies above its
  middle by what MPII's reader moves it down.
- The head box is such that PCKh's head size is the distance from neck to head top.

Left out is who has no neck or head top or fewer than 10 joints, or whose head is shorter than 6
pixels: PCKh would mean little there.
"""

from pathlib import Path

import numpy as np

from lib.dataset.mpii import FARTHEST, LOWERED
from lib.dataset.release.mpii import Person, Release
from lib.dataset.skeleton import MPII
from lib.dataset.transforms import PIXELS_PER_SCALE
from lib.utils.errors import UserError
from lib.utils.mat import read_mat

# The joints of joints.mat by their places in MPII's order.
TO_MPII = (0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9)
BETWEEN = {6: (2, 3), 7: (12, 13)}  # pelvis, thorax
NECK, HEAD = 8, 9

LEAST_JOINTS = 10
LEAST_HEAD = 6.0  # pixels from neck to head top
HEAD_BOX = 5 / 3  # its diagonal by the head's length, of which PCKh takes 0.6


def read_lspet(path: Path) -> Release:
    """Read joints.mat: everybody is a training person, and each photograph a video of its own.

    UserError where it is no such file, or of the first Leeds Sports Pose, whose third row means
    another thing.
    """
    joints = read_mat(path).get("joints")
    if not isinstance(joints, np.ndarray) or joints.dtype.kind not in "buif":
        raise UserError(f"{path} has no array `joints`: give joints.mat of LSPET")
    if joints.ndim == 3 and joints.shape[:2] == (3, len(TO_MPII)):
        raise UserError(
            f"{path} is {joints.shape}, of the first Leeds Sports Pose, where the third row tells "
            "who is hidden: give joints.mat of the extended set"
        )
    if joints.ndim != 3 or joints.shape[:2] != (len(TO_MPII), 3):
        raise UserError(
            f"{path}: `joints` should be {len(TO_MPII)} × 3 × people, it is {joints.shape}: "
            "give joints.mat of LSPET"
        )
    release = Release()
    for number, (x, y, annotated) in enumerate(joints.astype(np.float64).transpose(2, 1, 0), 1):
        points = np.stack([x, y], axis=1)
        there = (annotated > 0) & (np.abs(points) < FARTHEST).all(axis=1)  # nan is in neither
        person = _person(f"im{number:05d}.jpg", number, points, there)
        if isinstance(person, str):
            release.left_out[f"people {person}"] += 1
        else:
            release.train.append(person)
    if len(release.train) < 2:  # to train on, and to test on
        raise UserError(
            f"{path} has {len(release.train)} people with neck, head top and {LEAST_JOINTS} "
            "joints: give joints.mat of LSPET"
        )
    return release


def _person(image: str, number: int, points: np.ndarray, there: np.ndarray) -> Person | str:
    """Make a person of points [14, 2], of which some are `there`; or tell who is left out."""
    joints = np.full((MPII.num_joints, 2), -1.0)
    annotated = np.zeros(MPII.num_joints, dtype=bool)
    places = np.array(TO_MPII)
    joints[places[there]], annotated[places] = points[there], there
    for place, ends in BETWEEN.items():
        if annotated[list(ends)].all():
            joints[place], annotated[place] = joints[list(ends)].mean(axis=0), True
    if there.sum() < LEAST_JOINTS:
        return f"with fewer than {LEAST_JOINTS} joints"
    if not annotated[[NECK, HEAD]].all():
        return "without neck or head top"
    head = np.stack([joints[NECK], joints[HEAD]])
    if np.linalg.norm(head[1] - head[0]) < LEAST_HEAD:
        return f"whose head is shorter than {LEAST_HEAD:g} pixels"
    low, high = joints[annotated].min(axis=0), joints[annotated].max(axis=0)
    scale = float((high - low).max()) / PIXELS_PER_SCALE
    x, y = (low + high) / 2
    box = head.mean(axis=0) + HEAD_BOX * (np.sort(head, axis=0) - head.mean(axis=0))
    return Person(
        image=image,
        center=(float(x), float(y) - LOWERED * scale),
        scale=scale,
        joints=joints,
        annotated=annotated,
        head_box=tuple(box.ravel().tolist()),
        video=number,
    )
