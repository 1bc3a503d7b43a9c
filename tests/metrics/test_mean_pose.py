"""The mean pose: exact if all poses are alike, and a low score on synthetic people."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.config import get_cfg
from lib.dataset import build_dataset, read_annotation
from lib.dataset.synthetic.people import make_synthetic
from lib.metrics import build_metric
from lib.metrics.mean_pose import mean_pose


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    make_synthetic(root, {"train": 80, "valid": 80}, seed=0, image_size=64)
    return root


def test_the_mean_pose_has_a_low_score_on_synthetic_people(root: Path) -> None:
    cfg = get_cfg()
    cfg.DATASET.ROOT = str(root)
    test = build_dataset(cfg, "test")
    predictions = mean_pose(read_annotation(cfg, "train").records, test.records)
    assert 5 < build_metric(cfg).evaluate(predictions, test)["Mean"] <= 20


def test_the_mean_pose_is_exact_if_all_poses_are_alike(root: Path) -> None:
    cfg = get_cfg()
    cfg.DATASET.ROOT = str(root)
    person = read_annotation(cfg, "train").records[0]
    unannotated = replace(person, joints=np.full((16, 2), -1.0), visible=np.zeros(16))
    moved = replace(person, center=person.center * 2 + [7, 0], scale=person.scale * 2)
    visible = person.visible > 0
    joints = mean_pose([person, unannotated], [moved]).joints[0]
    np.testing.assert_allclose(joints[visible], (person.joints * 2 + [7, 0])[visible], rtol=1e-5)
