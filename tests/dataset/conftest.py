"""A small data set in MPII's layout, and checks that several tests of data sets use."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.utils.errors import UserError


@pytest.fixture
def person() -> dict[str, Any]:
    """Return an entry of annotation; its first joint is not annotated."""
    return {
        "image": "a.jpg",
        "center": [101.0, 61.0],
        "scale": 0.4,
        "joints": [[71.0 + 4 * j, 31.0 + 3 * j] for j in range(16)],
        "joints_vis": [0] + [1] * 15,
    }


@pytest.fixture
def root(tmp_path: Path, person: dict[str, Any]) -> Path:
    """Return the folder of seven people, each with an image, as files and as a zip."""
    root = tmp_path / "people"
    (root / "annot").mkdir(parents=True)
    (root / "images").mkdir()
    entries = []
    for i in range(7):
        image = np.random.default_rng(i).integers(0, 255, (15, 25, 3), np.uint8)
        name = f"{i}.png" if i == 2 else f"{i}.jpg"
        cv2.imwrite(str(root / "images" / name), cv2.resize(image, (200, 120)))
        entries.append({**person, "image": name, "scale": 0.2 + 0.1 * i})
    for image_set in ("train", "valid", "test"):
        (root / "annot" / f"{image_set}.json").write_text(json.dumps(entries))
        (root / "annot" / f"gt_{image_set}.mat").write_bytes(b"")
    with zipfile.ZipFile(root / "images.zip", "w") as file:
        for path in (root / "images").iterdir():
            file.write(path, path.name)
    return root


@pytest.fixture
def cfg(root: Path) -> CfgNode:
    """Return the configuration of these people, in crops of 32×48."""
    cfg = get_cfg()
    cfg.DATA_DIR, cfg.DATASET.ROOT, cfg.WORKERS = str(root.parent), root.name, 0
    cfg.MODEL.IMAGE_SIZE, cfg.MODEL.HEATMAP_SIZE = [32, 48], [8, 12]
    cfg.DATASET.PROB_HALF_BODY = 0.5
    cfg.TRAIN.BATCH_SIZE_PER_GPU = cfg.TEST.BATCH_SIZE_PER_GPU = 3
    return cfg


@pytest.fixture
def one_line() -> Callable[..., None]:
    """Return a check that a call raises a UserError of a single line that contains all `words`."""

    def check(act: Callable[[], Any], *words: str) -> None:
        with pytest.raises(UserError) as raised:
            act()
        message = str(raised.value)
        assert message.isprintable()
        assert len(message) < 600
        for word in words:
            assert word in message

    return check


@pytest.fixture
def assert_same() -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Return a check that two samples or batches are equal."""

    def check(one: dict[str, Any], other: dict[str, Any]) -> None:
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(other[key]), err_msg=key)

    return check
