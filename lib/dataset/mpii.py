"""MPII's layout: `annot/<set>.json` and, for PCKh, `annot/gt_<set>.mat`.

MPII counts pixels from 1. This file and `lib.metrics.pckh` are the only ones that convert.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lib.dataset.records import Annotation, Boxes, Record, read_numbers
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import MARGIN, PIXELS_PER_SCALE
from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import is_valid_path, shorten

# The joints as gt_<set>.mat names them, in MPII's order.
GT_NAMES = (
    "rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head",
    "rwri", "relb", "rsho", "lsho", "lelb", "lwri",
)  # fmt: skip

CENTER_SHIFT = 15  # pixels at scale 1, by which boxes lie below MPII's positions
UNLABELLED_SET = "test"  # the set whose people have no joints


def read_mpii(root: Path, image_set: str, skeleton: Skeleton, boxes: Boxes) -> Annotation:
    """Read a set in MPII's layout, with its own boxes; `test` has no joints and no ground truth.

    UserError names the file and the record that is wrong.
    """
    path, gt_path = set_paths(root, image_set)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; see data/README.md, or draw people: "
            "python tools/make_synthetic.py --out data/synthetic (make demo does that first)"
        )
    labelled = image_set != UNLABELLED_SET
    records = read_records(path, skeleton.num_joints, with_joints=labelled)
    return Annotation(records, path, gt_path if labelled and gt_path.is_file() else None)


def set_paths(root: Path, image_set: str) -> tuple[Path, Path]:
    """Return the JSON file of a set, and the .mat file that its PCKh is computed with."""
    folder = root / "annot"  # a set may be a path, also an absolute one
    return folder / f"{image_set}.json", folder / f"gt_{image_set}.mat"


def read_records(path: str | Path, num_joints: int, with_joints: bool = True) -> list[Record]:
    """Read an annotation file of MPII's layout; `with_joints` false makes all joints invisible.

    As in the HRNet family, the box moves down by 15·scale pixels and grows by a quarter, so that
    feet are not cut off. UserError names the file and the record that is wrong.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: the annotation must be a list of people that is not empty")
    return [
        _read_record(entry, num_joints, with_joints, f"{path}: record {index}")
        for index, entry in enumerate(entries)
    ]


def position_to_box(
    position: np.ndarray | tuple[float, float], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn MPII's position (1-based) and scale into a record's center and scale, [2] each."""
    center = np.asarray(position) + np.array([0, CENTER_SHIFT * scale]) - 1
    return center, np.full(2, MARGIN * scale)


def ground_truth(
    joints: np.ndarray, annotated: np.ndarray, head_boxes: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the content of gt_<set>.mat for N people.

    joints [N, 16, 2], annotated bool [N, 16] and head_boxes [N, 2, 2] of (x1, y1), (x2, y2), in
    1-based pixels, become dataset_joints object [1, 16], jnt_missing uint8 [16, N], pos_gt_src
    float64 [16, 2, N] (0 where missing) and headboxes_src float64 [2, 2, N].
    """
    return {
        "dataset_joints": np.array([GT_NAMES], dtype=object),
        "jnt_missing": (~annotated).astype(np.uint8).T,
        "pos_gt_src": np.where(annotated[..., None], joints, 0.0).transpose(1, 2, 0),
        "headboxes_src": head_boxes.astype(np.float64).transpose(1, 2, 0),
    }


def _read_record(entry: Any, num_joints: int, with_joints: bool, where: str) -> Record:
    if not isinstance(entry, dict):
        raise UserError(f"{where} must be an object with `image`, `center`, `scale`, `joints`")
    image = entry.get("image")
    if not isinstance(image, str) or not image or not is_valid_path(image):
        raise UserError(f"{where}: `image` must be a file name, not {shorten(repr(image))}")
    position = read_numbers(entry, "center", (2,), where)
    scale = float(read_numbers(entry, "scale", (), where))
    if position[0] == -1 or MARGIN * scale * PIXELS_PER_SCALE <= 1:  # -1: MPII's missing position
        raise UserError(f"{where}: no box: center {position.tolist()}, scale {scale}")
    joints, visible = np.zeros((num_joints, 2), np.float32), np.zeros(num_joints, np.float32)
    if with_joints:
        visible[:] = read_numbers(entry, "joints_vis", (num_joints,), where) > 0
        joints[:] = read_numbers(entry, "joints", (num_joints, 2), where, visible > 0) - 1
    box, side = position_to_box(position, scale), scale * PIXELS_PER_SCALE
    return Record(image, *box, joints, visible, side=side)
