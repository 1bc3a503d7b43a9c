"""A data set with other joints and a metric where lower is better."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from desk import SMALL, Desk
from toy_dataset import STAR, TOY_DATASET, MeanError

from lib.dataset import DATASETS, SKELETONS
from lib.metrics import METRICS
from lib.utils.checkpoint import read_checkpoint


def draw_stars(root: Path, people: dict[str, int]) -> None:
    """Write people whose joints are coloured dots, in MPII's layout (1-based pixels)."""
    rng = np.random.default_rng(0)
    corners = np.array([[32, 12], [52, 28], [12, 28], [44, 52], [20, 52]])
    (root / "images").mkdir(parents=True)
    (root / "annot").mkdir()
    for image_set, count in people.items():
        entries = []
        for number in range(count):
            image = np.full((64, 64, 3), 60, np.uint8)
            joints = corners + rng.integers(-6, 7, (5, 2))
            for joint, (x, y) in enumerate(joints.tolist()):
                cv2.circle(image, (x, y), 3, (50 * joint, 255 - 50 * joint, 255), -1)
            name = f"{image_set}_{number}.jpg"
            cv2.imwrite(str(root / "images" / name), image)
            entry = {"image": name, "center": [33, 30], "scale": 0.25}
            entries.append(
                entry | {"joints": (joints + 1).tolist(), "joints_vis": [1, 1, 1, 1, number % 2]}
            )
        (root / "annot" / f"{image_set}.json").write_text(json.dumps(entries))


@pytest.fixture(autouse=True)
def _toy_dataset(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register and configure the toy data set."""
    monkeypatch.setitem(SKELETONS, "star", STAR)
    monkeypatch.setitem(METRICS, "mean_error", MeanError())
    monkeypatch.setitem(DATASETS, "toy", TOY_DATASET)
    shutil.rmtree(desk.data)
    draw_stars(desk.data, {"train": 20, "valid": 6})
    model = SMALL["MODEL"] | {"NUM_JOINTS": 5}
    config = SMALL | {"DATASET": {"DATASET": "toy"}, "MODEL": model}
    desk.yaml.write_text(yaml.safe_dump(config))
    desk.results = desk.folder / "output/toy/pose_tokenpose_s/small"


def test_it_trains_resumes_and_keeps_the_lowest_error(desk: Desk) -> None:
    desk.check_exact_resume()
    errors = [entry["error"] for entry in json.loads((desk.results / "history.json").read_text())]
    assert len(set(errors)) == 2
    assert read_checkpoint(desk.results / "checkpoint.pth")["progress"]["best"] == min(errors)
    tested = desk.on_cfg("test", "TEST.MODEL_FILE", desk.results / "model_best.pth")
    assert tested.code == 0, tested.err
    assert "left_foot" in tested.out
    scores = json.loads((desk.results / "results.json").read_text())["scores"]
    assert scores["error"] == pytest.approx(min(errors))


def test_the_last_epoch_is_not_kept_if_it_is_worse(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, epochs = MeanError.evaluate, []

    def worse(*arguments: object) -> dict[str, float]:
        epochs.append(1)
        return evaluate(*arguments) | {"error": 10.0 * len(epochs)}

    monkeypatch.setattr(MeanError, "evaluate", worse)
    assert desk.on_cfg("train").code == 0
    assert read_checkpoint(desk.results / "checkpoint.pth")["progress"]["best"] == 10.0


def test_a_checkpoint_of_another_metric_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    monkeypatch.setattr(MeanError, "primary", "head")
    desk.on_cfg("train", "AUTO_RESUME", True).fails_with("metric error, this run has head")


def test_it_is_plotted(desk: Desk) -> None:
    assert desk.on_cfg("train").code == 0
    assert desk.on_cfg("test").code == 0
    plotted = desk.run("plot", desk.results)
    assert plotted.code == 0, plotted.err
    assert (desk.results / "training.png").exists()


def test_a_study_reports_that_lower_is_better(desk: Desk) -> None:
    study = {
        "CFG": "small.yaml",
        "VARIANTS": {"dense": {"MODEL.SPARSITY.PRUNE": "none"}, "full": {}},
    }
    path = desk.folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    folders = ("OUTPUT_DIR", desk.folder / "output", "LOG_DIR", desk.folder / "log")
    done = desk.run("study", "--study", path, *folders, "DATASET.ROOT", desk.data)
    assert done.code == 0, done.err
    assert "mean error (lower is better) of 6 people" in done.out
    assert "| variant | error | head |" in done.out
