"""The mean pose: exact where all stand alike, and not enough on synthetic people."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.core.baseline import mean_pose
from lib.core.evaluate import load_gt, pckh
from lib.dataset.mpii import Record, read_records
from lib.dataset.synthetic import make_synthetic


@pytest.fixture(scope="module")
def annot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "data"
    make_synthetic(root, {"train": 80, "valid": 80}, seed=0, image_size=64)
    return root / "annot"


@pytest.fixture(scope="module")
def train(annot: Path) -> list[Record]:
    return read_records(annot / "train.json", 16)


def test_the_mean_pose_is_not_enough(annot: Path, train: list[Record]) -> None:
    pred = mean_pose(train, read_records(annot / "valid.json", 16)) + 1
    assert 5 < pckh(pred, load_gt(annot / "gt_valid.mat"))["Mean"] <= 20


def test_the_mean_pose_is_exact_where_all_stand_alike(train: list[Record]) -> None:
    person = train[0]
    unseen = replace(person, joints=np.full((16, 2), -1.0), visible=np.zeros(16))
    moved = replace(person, center=person.center * 2 + [7, 0], scale=person.scale * 2)
    visible = person.visible > 0
    pred = mean_pose([person, unseen], [moved])
    np.testing.assert_allclose(pred[0][visible], (person.joints * 2 + [7, 0])[visible], rtol=1e-5)
