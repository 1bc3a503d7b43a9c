"""Runs are read as far as possible; a missing or bad file is reported in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.analysis.runs.plots import draw_runs
from lib.analysis.runs.read import read_history, read_run, read_runs, run_names
from lib.dataset import DATASETS, DatasetSpec
from lib.dataset.mpii import read_mpii
from lib.metrics import METRICS
from lib.metrics.pckh import PCKh
from lib.utils.errors import UserError

ALL = ["training", "accuracy", "errors"]
MakeRun = Callable[..., Path]
EditJson = Callable[[Path, Callable[[Any], Any]], None]


def test_complete_run_is_read(make_run: MakeRun) -> None:
    run = read_run(make_run())
    assert not run.notes
    assert run.history["loss"] == pytest.approx({0: 1, 1: 1 / 2, 2: 1 / 3})  # by epoch
    assert run.metric is not None
    assert run.evaluation is not None
    scores = run.metric.evaluate(run.evaluation.predictions, run.evaluation.dataset)
    assert scores == pytest.approx(json.loads((run.folder / "results.json").read_text())["scores"])
    assert list(draw_runs([run])) == ALL


def test_rate_of_older_histories_is_the_learning_rate(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text('[{"epoch": 0, "rate": 0.1}, {"epoch": 1, "lr": null}]')
    history = read_history(path)
    assert list(history) == ["lr"]
    assert history["lr"][0] == 0.1
    assert math.isnan(history["lr"][1])


def test_folders_without_a_run_are_reported_and_runs_read_once(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run()
    runs, notes = read_runs([tmp_path / "none", folder, folder / ".." / folder.name, tmp_path])
    assert [run.folder.resolve() for run in runs] == [folder.resolve()]
    assert len(notes) == 2
    assert all("not a run" in note for note in notes)


@pytest.mark.parametrize(
    ("file", "content", "reason", "drawn"),
    [
        ("results.json", None, "not tested yet", ["training"]),
        ("results.json", b"", "not valid JSON", ["training"]),
        ("pred.mat", None, "no such file", ["training"]),
        ("pred.mat", b"none", "cannot be read", ["training"]),
    ],
)
def test_bad_file_is_reported_and_the_rest_drawn(
    file: str, content: bytes | None, reason: str, drawn: list[str], make_run: MakeRun
) -> None:
    path = make_run() / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    run = read_run(path.parent)
    assert len(run.notes) == 1
    assert reason in run.notes[0]
    assert str(path.parent) in run.notes[0]
    assert list(draw_runs([run])) == drawn


def test_a_tested_run_without_history_is_drawn(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "history.json").unlink()
    run = read_run(folder)
    assert not run.notes
    assert list(draw_runs([run])) == ["accuracy", "errors"]


def test_a_run_with_a_damaged_history_is_reported(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "history.json").write_bytes(b"[")
    runs, notes = read_runs([folder])
    assert not runs
    assert "history.json: cannot be read, or is not valid JSON" in notes[0]


def test_predictions_that_do_not_match_the_scores_are_not_drawn(
    make_run: MakeRun, edit_json: EditJson
) -> None:
    folder = make_run()
    edit_json(folder / "results.json", lambda content: content["scores"].update(Mean=12.5))
    run = read_run(folder)
    assert run.evaluation is None
    assert "12.5" in run.notes[0]
    assert list(draw_runs([run])) == ["training"]


def test_set_without_annotation_has_no_score(make_run: MakeRun, edit_json: EditJson) -> None:
    folder = make_run()
    edit_json(folder / "results.json", lambda content: content.update(scores=None))
    assert "no annotation" in read_run(folder).notes[0]


def test_data_dir_replaces_the_one_of_the_run(
    make_run: MakeRun, edit_json: EditJson, people: Path
) -> None:
    folder = make_run()
    config = f"DATASET: {{DATASET: synthetic, ROOT: {people.name}}}"
    edit_json(folder / "results.json", lambda content: content.update(config=config))
    assert read_run(folder).evaluation is None
    assert read_run(folder, data_dir=str(people.parent)).evaluation is not None


def test_runs_tested_on_other_people_are_labelled(make_run: MakeRun) -> None:
    folders = [make_run("one"), make_run("two"), make_run("other", data="b")]
    runs, notes = read_runs(folders[:2])
    assert [run.name for run in runs] == ["one", "two"]
    assert not notes
    runs, notes = read_runs(folders)
    assert runs[2].name == "other (valid, 6 people, b)"
    assert "same people" in notes[0]


def test_runs_of_different_metrics_are_not_drawn_together(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(PCKh):
        name = "other"

    monkeypatch.setitem(METRICS, "other", Other())
    monkeypatch.setitem(DATASETS, "toy", DatasetSpec(read_mpii, "mpii", "other"))
    with pytest.raises(UserError, match="different metrics"):
        read_runs([make_run("a"), make_run("b", dataset_name="toy")])


@pytest.mark.filterwarnings("error")
def test_a_missing_value_is_a_gap_in_the_curve(make_run: MakeRun, edit_json: EditJson) -> None:
    folder = make_run()
    edit_json(folder / "history.json", lambda content: content[1].update(loss=None, Mean=None))
    figure = draw_runs([read_run(folder)])["training"]
    for axes in figure.axes:
        for line in axes.lines:
            missing = np.isnan(line.get_ydata()).tolist()
            in_gap = axes.get_ylabel() in ("training loss", "PCKh@0.5 (%)")
            assert missing == [False, in_gap, False]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["o/d/m/demo"], ["m/demo"]),
        (["o/d/m/demo", "o/d/m/dense"], ["demo", "dense"]),
        (["s/dense/seed_0", "s/full/seed_0"], ["dense/seed_0", "full/seed_0"]),
        (["s/a/seed_0", "demo"], ["s/a/seed_0", "demo"]),
    ],
)
def test_runs_are_named_by_the_path_that_differs(folders: list[str], names: list[str]) -> None:
    assert run_names([Path(folder) for folder in folders]) == names
