"""PCK: shares of the longer side of the annotated box, over annotated joints."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.config import get_cfg
from lib.dataset import PoseDataset, build_dataset
from lib.dataset.predictions import Predictions
from lib.metrics import build_metric
from lib.metrics.pck import PCK

SIGMAS = "sigmas: [0.1, 0.1, 0.1]\n"


def read(root: Path, sigmas: str = "") -> tuple[PoseDataset, str]:
    """Write two people in COCO's layout; return them as read, and the name of their metric."""
    (root / "images/valid").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    people = [
        {"bbox": [10, 10, 40, 100], "keypoints": [20, 20, 2, 30, 50, 1, 0, 0, 0]},
        {"bbox": [100, 10, 200, 50], "keypoints": [120, 20, 2, 130, 40, 2, 250, 50, 2]},
    ]
    for index, person in enumerate(people):
        person |= {"id": index + 1, "image_id": 1, "category_id": 1}
    images = [{"id": 1, "file_name": "a.jpg", "width": 400, "height": 200}]
    content = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "x"}]}
    (root / "annotations/person_keypoints_valid.json").write_text(json.dumps(content))
    (root / "three.yaml").write_text(f"names: [a, b, c]\n{sigmas}")
    cfg = get_cfg()
    cfg.DATASET.DATASET, cfg.DATASET.ROOT, cfg.MODEL.NUM_JOINTS = "coco", str(root), 3
    cfg.DATASET.SKELETON = str(root / "three.yaml")
    return build_dataset(cfg, "test"), build_metric(cfg).name


def test_a_skeleton_with_sigmas_has_oks(tmp_path: Path) -> None:
    assert read(tmp_path)[1] == "PCK@0.1"
    assert read(tmp_path, SIGMAS)[1] == "OKS-AP"


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [  # the longer sides are 100 and 200 pixels; two joints and three are annotated
        (0, (100, 100, 100)),
        (5, (100, 100, 100)),
        (8, (60, 100, 100)),
        (15, (0, 60, 100)),
        (30, (0, 0, 60)),
        (41, (0, 0, 0)),
        (np.nan, (0, 0, 0)),
    ],
)
def test_shares_of_the_longer_side(
    tmp_path: Path, pixels: float, expected: tuple[float, ...]
) -> None:
    dataset, _ = read(tmp_path)
    joints = np.stack([record.joints for record in dataset.records]).astype(np.float64)
    joints[..., 1] += pixels
    scores = PCK().evaluate(Predictions(joints, np.ones((2, 3))), dataset)
    assert list(scores) == ["PCK@0.05", "PCK@0.1", "PCK@0.2"]
    assert tuple(scores.values()) == pytest.approx(expected)
