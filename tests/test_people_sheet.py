"""docs/people_sheet.py: the joints that MPII and COCO share, OKS, and the boxes of MPII."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from lib.dataset.mpii import read_mpii
from lib.dataset.records import Boxes
from lib.dataset.skeleton import COCO, MPII
from lib.dataset.transforms import box_to_center_scale

ROOT = Path(__file__).resolve().parents[1]
SHEET = runpy.run_path(str(ROOT / "docs/people_sheet.py"))
oks, shared_joints = SHEET["oks"], SHEET["shared_joints"]


@pytest.fixture
def keypoints() -> np.ndarray:
    """Someone all of whose joints are labelled, in COCO's order."""
    joints = np.random.default_rng(0).uniform(0, 100, (17, 2))
    return np.column_stack([joints, np.full(17, 2.0)])


@pytest.fixture
def joints(keypoints: np.ndarray) -> np.ndarray:
    """The same person in MPII's order; what COCO lacks is far off."""
    joints = np.full((16, 2), 1e4)
    for index, name in enumerate(MPII.names):
        if name in COCO.names:
            joints[index] = keypoints[COCO.names.index(name), :2]
    return joints


def test_shared_joints_are_shoulders_to_ankles_on_their_own_side() -> None:
    ours, theirs = shared_joints(MPII)
    assert [MPII.names[i] for i in ours] == [COCO.names[i] for i in theirs]
    assert theirs == list(range(5, 17))
    assert shared_joints(COCO)[0] == list(range(17))


def test_the_annotation_itself_has_oks_1(keypoints: np.ndarray, joints: np.ndarray) -> None:
    assert oks(joints, keypoints, 2500.0, MPII) == 1
    assert oks(keypoints[:, :2], keypoints, 2500.0, COCO) == 1
    assert oks(joints[MPII.flip_order], keypoints, 2500.0, MPII) < 0.9  # left is not right


def test_a_shifted_wrist_has_the_oks_of_the_formula(
    keypoints: np.ndarray, joints: np.ndarray
) -> None:
    joints[MPII.names.index("left_wrist")] += [3, 4]
    # d² = 25, σ of wrists = 0.062: 25 / (2 · 2500 · 0.124²) = 0.325182; 11 of 12 joints are right
    assert oks(joints, keypoints, 2500.0, MPII) == pytest.approx((11 + math.exp(-0.325182)) / 12)


def test_only_labelled_joints_count(keypoints: np.ndarray, joints: np.ndarray) -> None:
    wrist = COCO.names.index("left_wrist")
    joints[MPII.names.index("left_wrist")] += 1e3
    keypoints[wrist, 2] = 0
    assert oks(joints, keypoints, 2500.0, MPII) == 1
    keypoints[:, 2] = 0
    assert math.isnan(oks(joints, keypoints, 2500.0, MPII))


def test_boxes_of_mpii_give_the_crops_of_the_data_set(shared: Path) -> None:
    root = shared / "data/mpii"
    records = read_mpii(root, "sample", MPII, Boxes((128, 128))).records
    for record, subject in zip(records, SHEET["read_sample"](root), strict=True):
        center, scale = box_to_center_scale(subject.box, (128, 128))
        np.testing.assert_allclose(center, record.center)
        np.testing.assert_allclose(scale, record.scale)
