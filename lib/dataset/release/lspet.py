"""Reader of the official archive of Leeds Sports Pose extended (LSPET), its `joints.mat`.

`joints` is [14, 3, N]: x, y in pixels and whether the joint is annotated, of the person in the
middle of `im00001.jpg`, `im00002.jpg`, … The rest of MPII's annotation is derived:

- Pelvis and thorax are the middles of the hips and of the shoulders, if both are annotated.
- The longer side of the annotated joints' bounding box is the person's height; MPII's reader moves
  the position down to the middle of that box.
- The head box is such that PCKh's head size is the distance from neck to head top.

People without neck or head top, with fewer than 10 joints, or with a head shorter than 6 pixels are
excluded: PCKh would mean little for them.
"""

from pathlib import Path

import numpy as np

from lib.dataset.mpii import CENTER_SHIFT
from lib.dataset.release.mpii import Person, Release
from lib.dataset.skeleton import MPII
from lib.dataset.transforms import MAX_COORDINATE, PIXELS_PER_SCALE
from lib.utils.errors import UserError
from lib.utils.mat import read_mat

TO_MPII = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]  # MPII's index of each joint
BETWEEN = {6: [2, 3], 7: [12, 13]}  # pelvis, thorax
NECK, HEAD = 8, 9

MIN_JOINTS = 10
MIN_HEAD = 6.0  # pixels from neck to head top
HEAD_BOX = 5 / 3  # its diagonal in lengths of the head; PCKh takes 0.6 of it


def read_lspet(path: Path) -> Release:
    """Read joints.mat: everyone is a training person, and each image its own video.

    UserError: another file, as that of the first Leeds Sports Pose with its opposite third value.
    """
    joints = np.asarray(read_mat(path).get("joints"))
    if joints.dtype.kind not in "buif" or joints.ndim != 3 or joints.shape[:2] != (14, 3):
        found = f"not {joints.dtype} {joints.shape}: pass LSPET's joints.mat"
        raise UserError(f"{path}: `joints` must be numbers of shape (14, 3, people), {found}")
    release = Release()
    for number, (x, y, annotated) in enumerate(joints.astype(np.float64).transpose(2, 1, 0), 1):
        points = np.stack([x, y], axis=1)
        marked = (annotated > 0) & (np.abs(points) < MAX_COORDINATE).all(axis=1)  # false for nan
        person = _make_person(f"im{number:05d}.jpg", number, points, marked)
        if isinstance(person, str):
            release.excluded[f"people {person}"] += 1
        else:
            release.train.append(person)
    return release


def _make_person(image: str, number: int, points: np.ndarray, marked: np.ndarray) -> Person | str:
    """Return the person of points [14, 2], of which `marked` [14] count, or why it is excluded."""
    joints = np.full((MPII.num_joints, 2), -1.0)
    annotated = np.zeros(MPII.num_joints, dtype=bool)
    joints[TO_MPII], annotated[TO_MPII] = np.where(marked[:, None], points, -1), marked
    for joint, ends in BETWEEN.items():
        if annotated[ends].all():
            joints[joint], annotated[joint] = joints[ends].mean(axis=0), True
    head = joints[[NECK, HEAD]]
    if marked.sum() < MIN_JOINTS:
        return f"with fewer than {MIN_JOINTS} joints"
    if not annotated[[NECK, HEAD]].all():
        return "without neck or head top"
    if np.linalg.norm(head[1] - head[0]) < MIN_HEAD:
        return f"whose head is shorter than {MIN_HEAD:g} pixels"
    low, high = joints[annotated].min(axis=0), joints[annotated].max(axis=0)
    scale = float((high - low).max()) / PIXELS_PER_SCALE
    x, y = (low + high) / 2
    box = head.mean(axis=0) + HEAD_BOX * (np.sort(head, axis=0) - head.mean(axis=0))
    return Person(
        image=image,
        center=(float(x), float(y) - CENTER_SHIFT * scale),
        scale=scale,
        joints=joints,
        annotated=annotated,
        head_box=tuple(box.ravel().tolist()),
        video=number,
    )
