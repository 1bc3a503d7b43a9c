"""Folders of runs, as the commands leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.config import get_cfg
from lib.core.results import write_json
from lib.dataset import build_dataset
from lib.dataset.predictions import Predictions
from lib.dataset.synthetic.people import make_synthetic
from lib.metrics import build_metric

PEOPLE = 6
MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "people"
    make_synthetic(root, {"valid": PEOPLE}, seed=0, image_size=64)
    return root


@pytest.fixture
def make_run(tmp_path: Path, people: Path) -> MakeRun:
    """Make the folder of a run whose predictions are `pixels` wrong."""

    def make(
        name: str = "run",
        pixels: float = 2,
        epochs: int = 3,
        data: str = "a",
        kind: str = "synthetic",
    ) -> Path:
        folder = tmp_path / "output" / name
        folder.mkdir(parents=True)
        cfg = get_cfg()
        cfg.DATASET.DATASET, cfg.DATASET.ROOT = kind, str(people)
        dataset, metric = build_dataset(cfg, "test"), build_metric(cfg)
        joints = np.stack([record.joints for record in dataset.records])
        joints = joints + pixels * np.random.default_rng(0).standard_normal(joints.shape)
        predictions = Predictions(joints, np.ones(joints.shape[:2]))
        metric.save_predictions(folder, predictions)
        scores = metric.evaluate(predictions, dataset)
        results = {
            "scores": scores,
            "config": cfg.dump() + "OTHER: {VERSION: 1}\n",
            "data": {"set": "valid", "people": PEOPLE, "fingerprint": data},
        }
        write_json(folder / "results.json", results)
        history = [
            {"epoch": epoch, "loss": 1 / (epoch + 1), "lr": 0.1, **scores}
            for epoch in range(epochs)
        ]
        write_json(folder / "history.json", history)
        return folder

    return make


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[Any], Any]], None]:
    """Change a JSON file's content in place."""

    def edit(path: Path, change: Callable[[Any], Any]) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit
