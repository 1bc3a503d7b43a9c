"""Folders of runs, with the files that the commands write."""

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
from lib.metrics import build_metric

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, people: Path) -> MakeRun:
    """Return a function that writes a run whose predictions have errors of about `pixels`."""

    def make(
        name: str = "run",
        pixels: float = 2,
        epochs: int = 3,
        data: str = "a",
        dataset_name: str = "synthetic",
    ) -> Path:
        folder = tmp_path / "output" / name
        folder.mkdir(parents=True)
        cfg = get_cfg()
        cfg.DATASET.DATASET, cfg.DATASET.ROOT = dataset_name, str(people)
        dataset, metric = build_dataset(cfg, "test"), build_metric(cfg)
        joints = np.stack([record.joints for record in dataset.records])
        joints = joints + pixels * np.random.default_rng(0).standard_normal(joints.shape)
        predictions = Predictions(joints, np.ones(joints.shape[:2]))
        metric.save_predictions(folder, predictions, dataset)
        scores = metric.evaluate(predictions, dataset)
        results = {
            "scores": scores,
            "config": cfg.dump() + "OTHER: {VERSION: 1}\n",
            "data": {"set": "valid", "people": len(dataset), "fingerprint": data},
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
    """Return a function that changes a JSON file."""

    def edit(path: Path, change: Callable[[Any], Any]) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit
