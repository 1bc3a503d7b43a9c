"""Conversion of the official LSPET archive to MPII's layout."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from lib.dataset.mpii import read_records
from lib.dataset.release.lspet import MIN_JOINTS, TO_MPII, read_lspet
from lib.metrics.pckh import load_gt, normalised_errors
from lib.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]

Write = Callable[[np.ndarray], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes joints [N, 14, 3] as in the archive, and empty images."""

    def write(people: np.ndarray) -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        for number in range(1, len(people) + 1):
            (tmp_path / "images" / f"im{number:05d}.jpg").touch()
        path = tmp_path / "joints.mat"
        savemat(path, {"joints": people.transpose(1, 2, 0)}, do_compression=True)
        return path

    return write


def random_people(count: int = 40) -> np.ndarray:
    people = np.random.default_rng(0).uniform(1, 150, (count, 14, 3))
    people[..., 2] = 1
    return people


def read(root: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((root / f"annot/{name}.json").read_text())


def prepare(monkeypatch: pytest.MonkeyPatch, mat: Path, *words: object) -> Path:
    """Run the command; return the folder that it writes."""
    tool, out = str(ROOT / "tools/prepare_lspet.py"), mat.parent / "out"
    images = ("--images", mat.parent / "images")
    command = [tool, "--mat", mat, *images, "--out", out, *words]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    runpy.run_path(tool, run_name="__main__")
    return out


def test_real_annotation_is_reproduced(
    shared: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The joints of 6,900 real images give the rest of their annotation."""
    folder = shared / "data/lspet/annot"
    listed = {
        entry["image"]: entry for name in ("train", "valid") for entry in read(folder.parent, name)
    }
    people = np.zeros((10_000, 14, 3))  # people who are not listed have no joint
    for image, entry in listed.items():
        joints = np.c_[entry["joints"], entry["joints_vis"]]
        people[int(image[2:7]) - 1] = joints[list(TO_MPII)]
    out = prepare(monkeypatch, write(people), "--valid", folder / "valid.json")

    assert not (out / "annot/test.json").exists()
    for name in ("train", "valid"):
        ours, theirs = read(out, name), read(folder.parent, name)
        assert [entry["image"] for entry in ours] == [entry["image"] for entry in theirs]
        assert [e["joints_vis"] for e in ours] == [e["joints_vis"] for e in theirs]
        visible = np.array([entry["joints_vis"] for entry in ours], dtype=bool)
        for key, rounded in (("center", 0.02), ("scale", 2e-4), ("joints", 0.006)):
            a, b = (np.array([entry[key] for entry in entries]) for entries in (ours, theirs))
            if key == "joints":
                a, b = a[visible], b[visible]
            assert np.abs(a - b).max() <= rounded, key
    gt, known = (load_gt(annot / "gt_valid.mat") for annot in (out / "annot", folder))
    points = np.random.default_rng(0).uniform(0, 150, (700, 16, 2))
    np.testing.assert_allclose(
        normalised_errors(points, gt), normalised_errors(points, known), rtol=2e-3, atol=1e-3
    )


def test_the_box_is_around_the_joints(write: Write, tmp_path: Path) -> None:
    """MPII's reader returns the joints' box, enlarged by a quarter, 0-based."""
    people = random_people()
    path = tmp_path / "people.json"
    path.write_text(json.dumps([person.record() for person in read_lspet(write(people)).train]))
    for record, points in zip(read_records(path, 16), people[..., :2], strict=True):
        low, high = points.min(axis=0), points.max(axis=0)
        np.testing.assert_allclose(record.center, (low + high) / 2 - 1)
        assert record.scale * 200 == pytest.approx(1.25 * (high - low).max())


def test_the_head_size_is_the_distance_from_neck_to_top(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = prepare(monkeypatch, write(random_people()))
    gt = load_gt(out / "annot/gt_valid.mat")
    truth = gt["pos_gt_src"].transpose(2, 0, 1)
    length = np.linalg.norm(truth[:, 9] - truth[:, 8], axis=1)
    off = truth + np.array([1.0, 0])
    np.testing.assert_allclose(normalised_errors(off, gt), (1 / length)[:, None].repeat(16, axis=1))


def test_missing_joints_stay_missing(write: Write) -> None:
    people = random_people(3)
    people[0, 2, 2] = 0  # the right hip
    people[1, 3] = np.nan  # the left hip
    people[1, 5, 2] = np.nan  # the visibility of the left ankle
    people[2, 4, 0] = 1e9  # the left knee, outside any image
    first, second, third = read_lspet(write(people)).train
    assert np.flatnonzero(~first.annotated).tolist() == [2, 6]
    assert np.flatnonzero(~second.annotated).tolist() == [3, 5, 6]
    assert (first.joints[[2, 6]] == -1).all()
    assert np.flatnonzero(~third.annotated).tolist() == [4]
    np.testing.assert_allclose(third.joints[6], people[2, 2:4, :2].mean(axis=0))
    np.testing.assert_allclose(third.joints[7], people[2, 8:10, :2].mean(axis=0))


def test_people_who_cannot_be_scored_are_excluded(write: Write) -> None:
    people = random_people(6)
    people[0, 12, 2] = 0  # no neck
    people[1, 13, 2] = 0  # no head top
    people[2, : 14 - MIN_JOINTS + 1, 2] = 0
    people[3, : 14 - MIN_JOINTS, 2] = 0
    people[4, 13, :2] = people[4, 12, :2] + 4
    release = read_lspet(write(people))
    assert [person.image for person in release.train] == ["im00004.jpg", "im00006.jpg"]
    assert release.excluded == {
        "people without neck or head top": 2,
        "people with fewer than 10 joints": 1,
        "people whose head is shorter than 6 pixels": 1,
    }


def test_the_command_splits_and_does_not_overwrite(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mat = write(random_people(100))
    out = prepare(monkeypatch, mat)
    assert "people: train 90, valid 10, trainval 100" in capsys.readouterr().out
    assert (out / "images").samefile(mat.parent / "images")
    names = [{entry["image"] for entry in read(out, name)} for name in ("train", "valid")]
    assert len(names[0] | names[1]) == 100
    again = prepare(monkeypatch, mat, "--overwrite")
    assert {entry["image"] for entry in read(again, "valid")} == names[1]
    with pytest.raises(SystemExit) as stop:
        prepare(monkeypatch, mat)
    assert stop.value.code == 2
    assert "pass --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ({"joints": np.zeros((3, 14, 2000))}, r"\(14, 3, people\), not float64 \(3, 14, 2000\)"),
        ({"joints": np.zeros((14, 2, 5))}, r"not float64 \(14, 2, 5\)"),
        ({"joints": np.zeros((14, 3))}, r"not float64 \(14, 3\)"),
        ({"joints": np.array(["a"])}, "`joints` must be numbers"),
        ({"other": np.zeros((14, 3, 5))}, "`joints` must be numbers"),
    ],
)
def test_other_files_are_an_error(tmp_path: Path, arrays: dict, error: str) -> None:
    path = tmp_path / "joints.mat"
    savemat(path, arrays, do_compression=True)
    with pytest.raises(UserError, match=error):
        read_lspet(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(UserError, match="cannot be read"):
        read_lspet(path)
    with pytest.raises(UserError, match="no such file"):
        read_lspet(tmp_path / "none.mat")
