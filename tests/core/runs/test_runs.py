"""Runs are read as far as they can be, told in lines where they cannot, and named apart."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.io import savemat

from lib.core.evaluate import JOINTS, load_gt, pckh
from lib.core.results import scalar_tag, write_json, write_predictions
from lib.core.runs.plots import draw_runs, labels
from lib.core.runs.read import Run, read_run, read_runs, short_names
from lib.utils.errors import UserError
from lib.utils.event_files import EventLog
from lib.utils.plot import picture

PEOPLE = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of which there is the ground truth alone."""
    random = np.random.default_rng(0)
    low = random.uniform(0, 500, (2, PEOPLE))
    gt = {
        "dataset_joints": np.array([JOINTS], dtype=object),
        "jnt_missing": (random.random((16, PEOPLE)) < 0.2).astype(np.uint8),
        "pos_gt_src": random.uniform(0, 900, (16, 2, PEOPLE)),
        "headboxes_src": np.stack((low, low + random.uniform(20, 90, (2, PEOPLE)))),
    }
    folder = tmp_path / "data"
    (folder / "annot").mkdir(parents=True)
    savemat(folder / "annot/gt_valid.mat", gt)
    return folder


@pytest.fixture
def make_run(tmp_path: Path, data: Path) -> Callable[..., Path]:
    """Make the folder of a run, as the commands leave it."""

    def make(name: str = "run", epochs: int = 3, fingerprint: str = "a") -> Path:
        folder = tmp_path / "output/synthetic/pose_tokenpose_s" / name
        folder.mkdir(parents=True)
        gt = load_gt(data / "annot/gt_valid.mat")
        noise = 20 * np.random.default_rng(len(name)).standard_normal((PEOPLE, 16, 2))
        joints = np.transpose(gt["pos_gt_src"], (2, 0, 1)) + noise
        config = {
            "LOG_DIR": str(tmp_path / "log"),
            "DATASET": {"ROOT": str(data), "TEST_SET": "valid"},
        }
        results = {
            "scores": pckh(joints, gt),
            "config": yaml.safe_dump(config),
            "data": {"set": "valid", "people": PEOPLE, "fingerprint": fingerprint},
        }
        write_predictions(folder / "pred.mat", joints - 1)
        write_json(folder / "results.json", results)
        write_json(folder / "history.json", history(epochs))
        return folder

    return make


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "loss": 1 / (epoch + 1), "rate": 0.1, "Mean": 10.0 * epoch, "Mean@0.1": 1}
        for epoch in range(epochs)
    ]


def write_logs(folder: Path, epochs: int, factor: float = 1) -> None:
    log = EventLog(folder)
    for now in history(epochs):
        for name in now.keys() - {"epoch"}:
            log.add_scalar(scalar_tag(name), factor * now[name], now["epoch"] + 1)


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def drawable(run: Run) -> list[str]:
    """The plots that there is data for."""
    tested = run.tested
    there = {"training": run.history, "pckh": tested, "errors": tested and tested.gt}
    return [name for name, data in there.items() if data]


def test_a_whole_run_is_read(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    assert run.faults == ()
    assert run.history["loss"] == pytest.approx({1: 1, 2: 1 / 2, 3: 1 / 3})
    assert list(run.history["Mean"]) == [1, 2, 3]  # epochs done
    scores = json.loads((run.folder / "results.json").read_text())["scores"]
    assert run.tested.scores == scores
    assert pckh(run.tested.predictions, run.tested.gt) == pytest.approx(scores)
    assert run.tested.people == f"valid, {PEOPLE} people"


def test_logs_stand_in_for_a_history(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run()
    whole = read_run(folder)
    logs = tmp_path / "elsewhere"
    write_logs(logs / folder.relative_to(tmp_path / "output"), epochs=3)
    (folder / "history.json").unlink()
    run = read_run(folder, log_dir=str(logs))
    assert run.faults == ()
    for name, line in whole.history.items():
        assert run.history[name] == pytest.approx(line)
    assert "no TensorBoard logs" in read_run(folder).faults[0]


def test_logs_fill_the_beginning_of_a_history_alone(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_run(epochs=4)
    write_logs(tmp_path / "log" / folder.relative_to(tmp_path / "output"), 6, factor=100)
    changed(folder / "history.json", lambda content: content.__delitem__(slice(0, 2)))
    assert read_run(folder).history["Mean"] == {1: 0.0, 2: 1000.0, 3: 20.0, 4: 30.0}


def test_a_folder_without_a_run_says_where_one_is(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_run("study/dense/seed_0")
    with pytest.raises(UserError, match=r"is no run.*seed_0 is one"):
        read_run(folder.parents[1])
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    runs, faults = read_runs([tmp_path / "none", folder, tmp_path / "empty", folder])
    assert [run.folder for run in runs] == [folder]
    assert len(faults) == 2
    assert len(read_runs([folder, folder / ".." / folder.name])[0]) == 1


@pytest.mark.parametrize(
    ("file", "content", "told", "drawn"),
    [
        ("results.json", None, "not tested yet", ["training"]),
        ("results.json", b"", "not valid JSON", ["training"]),
        ("results.json", b"[" * 100_000, "not valid JSON", ["training"]),
        ("results.json", b"{}", "should be an object", ["training"]),
        ("history.json", b"{}", "should be a list", ["pckh", "errors"]),
        ("history.json", b"[]", "no epoch", ["pckh", "errors"]),
        ("history.json", b'[{"epoch": "one"}]', "`epoch`", ["pckh", "errors"]),
        ("history.json", b'[{"epoch": 0, "loss": true}]', "`loss`", ["pckh", "errors"]),
        ("pred.mat", None, "no such file", ["training", "pckh"]),
        ("pred.mat", b"none", "cannot be read", ["training", "pckh"]),
    ],
)
def test_a_bad_file_is_told_and_the_rest_is_drawn(
    file: str,
    content: bytes | None,
    told: str,
    drawn: list[str],
    make_run: Callable[..., Path],
) -> None:
    path = make_run() / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    run = read_run(path.parent)
    assert len(run.faults) == 1
    assert told in run.faults[0]
    assert "\n" not in run.faults[0]
    assert str(path.parent) in run.faults[0]
    assert drawable(run) == drawn


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content["scores"].update(Mean=99.0), "other scores"),
        (lambda content: content["scores"].update(Mean=None), "no score of Mean"),
        (lambda content: content.update(config="DATASET: {ROOT: nowhere}"), "--dataDir"),
        (lambda content: content.update(config="DATASET: ["), "`config`"),
        (lambda content: content["data"].update(set="a\0b"), "no such file"),
    ],
)
def test_a_test_without_its_annotation_shows_its_scores(
    change: Callable[[Any], Any], told: str, make_run: Callable[..., Path]
) -> None:
    folder = make_run()
    changed(folder / "results.json", change)
    run = read_run(folder)
    assert any(told in fault for fault in run.faults)
    assert run.tested.gt is None
    assert drawable(run) == ["training", "pckh"]


def test_a_set_without_annotation_has_no_score(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    changed(folder / "results.json", lambda content: content.update(scores=None))
    run = read_run(folder)
    assert run.tested is None
    assert "no annotation" in run.faults[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [None, 10**400], ids=["nan", "huge"])
def test_what_is_not_finite_is_told_and_left_out(
    value: float | None, make_run: Callable[..., Path]
) -> None:
    folder = make_run()
    changed(folder / "history.json", lambda content: content[2].update(loss=value, Mean=value))
    run = read_run(folder)
    assert len(run.faults) == 2
    assert all("not a finite number after epoch 3" in fault for fault in run.faults)
    run = replace(run, tested=None)
    picture(draw_runs([run])["training"])


def test_annotation_is_found_elsewhere(make_run: Callable[..., Path], data: Path) -> None:
    folder = make_run()
    changed(
        folder / "results.json",
        lambda content: content.update(config="DATASET: {ROOT: data, TEST_SET: valid}"),
    )
    assert read_run(folder).tested.gt is None
    assert read_run(folder, data_dir=str(data.parent)).tested.gt is not None


def test_a_legend_says_where_the_people_differ(make_run: Callable[..., Path]) -> None:
    folders = [make_run("one"), make_run("two"), make_run("other", fingerprint="b" * 64)]
    runs, faults = read_runs(folders[:2])
    assert labels(runs) == ["one", "two"]
    assert not faults
    runs, faults = read_runs(folders)
    assert len(set(labels(runs))) == 3
    assert labels(runs)[2] == f"other (valid, {PEOPLE} people, data bbbbbb)"
    assert "same people" in faults[0]
    shutil.rmtree(folders[0])
    assert [run.name for run in read_runs(folders)[0]] == ["two", "other"]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["o/d/m/demo"], ["m/demo"]),
        (["o/d/m/demo", "o/d/m/dense"], ["demo", "dense"]),
        (["o/d/m/demo", "o/d/other/demo"], ["m", "other"]),
        (["s/dense/seed_0", "s/dense/seed_1"], ["seed_0", "seed_1"]),
        (["s/dense/seed_0", "s/full/seed_0"], ["dense", "full"]),
        (["s/a/seed_0", "s/a/seed_1", "s/b/seed_0"], ["a/seed_0", "a/seed_1", "b/seed_0"]),
        (["s/a/seed_0", "demo"], ["seed_0", "demo"]),
        (
            ["m/tokenpose_s_256_192_patch43_dim192_a_x", "m/tokenpose_s_256_192_patch43_dim96_b_x"],
            ["dim192_a", "dim96_b"],
        ),
    ],
)
def test_names_are_what_differs(folders: list[str], names: list[str]) -> None:
    assert short_names([Path(folder) for folder in folders]) == names


PARTS = st.lists(st.text("ab_/", min_size=1, max_size=30), min_size=1, max_size=4)


@given(st.lists(PARTS.map("/".join), min_size=2, max_size=6))
@example(["a" * 40 + "_", "a" * 40 + "_b"])
@example(["a" * 30 + "b" + "a" * 30, "a" * 30 + "c" + "a" * 30])
def test_no_two_names_are_alike(folders: list[str]) -> None:
    apart = list({Path("/r", folder.strip("/")).resolve() for folder in folders})
    names = short_names(apart)
    assert len(set(names)) == len(apart)
    assert all(names)
