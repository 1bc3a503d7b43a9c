"""The network in models/people: what is used without a configuration, in any folder."""

import json
import logging
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from desk import ROOT, Desk

from lib.config import load_cfg
from lib.predictor import Predictor
from lib.utils.checkpoint import read_weights
from lib.utils.errors import UserError

YAML = ROOT / "models/people/people_128.yaml"
WEIGHTS = YAML.with_suffix(".safetensors")
PHOTO, BOXES = ROOT / "docs/photo.jpg", ROOT / "docs/photo_boxes.json"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another current folder than the checkout."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_predict_without_a_configuration_finds_people(desk: Desk, elsewhere: Path) -> None:
    outcome = desk.run("predict", "--input", PHOTO, "--boxes", BOXES)
    assert outcome.code == 0, outcome.err
    assert "2 people in 1 image" in outcome.out
    assert "results: output/predict/photo.jpg, output/predict/keypoints.json" in outcome.out
    assert outcome.err.count("trained on") == 1
    results = elsewhere / "output/predict"
    assert (cv2.imread(str(results / "photo.jpg")) != cv2.imread(str(PHOTO))).any()
    people = json.loads((results / "keypoints.json").read_text())
    assert [person["bbox"] for person in people] == json.loads(BOXES.read_text())["photo.jpg"]
    for person in people:
        joints = np.reshape(person["keypoints"], (16, 3))
        x, y, width, height = person["bbox"]
        assert (joints[:, 2] > 0.2).sum() >= 12  # so many are drawn
        assert np.median(np.abs(joints[:, 0] - x - width / 2)) < width / 2
        assert joints[9, 1] < y + height / 4  # the top of the head
        assert joints[[0, 5], 1].min() > y + height / 2  # ankles
    assert [path.name for path in elsewhere.iterdir()] == ["output"]


def test_overrides_hold_and_a_configuration_alone_has_its_own_weights(desk: Desk) -> None:
    words = ("--input", PHOTO, "--write", "keypoints")
    desk.run("predict", *words, "TEST.MODEL_FILE", "none.pth").fails_with("none.pth")
    desk.run("predict", *words, "TEST.RUNTIME", "slow").fails_with("TEST.RUNTIME")
    desk.on_cfg("predict", *words).fails_with("small/final_state.pth")
    for tool in ("test", "export"):
        assert desk.run(tool).code == 2


def test_a_missing_file_is_one_line(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "people_128.yaml"
    monkeypatch.setattr("lib.predictor.PEOPLE", copy)
    desk.run("predict", "--input", PHOTO).fails_with(f"{copy} is missing")
    copy.write_bytes(YAML.read_bytes())
    with pytest.raises(UserError, match=r"people_128\.safetensors is missing"):
        Predictor()


def test_the_predictor_has_the_same_default(caplog: pytest.LogCaptureFixture) -> None:
    image = cv2.imread(str(PHOTO))[..., ::-1]
    boxes = json.loads(BOXES.read_text())["photo.jpg"]
    with caplog.at_level(logging.INFO):
        people = Predictor()(image, boxes)
    assert len([line for line in caplog.messages if "trained on" in line]) == 1
    for person, other in zip(people, Predictor(YAML, WEIGHTS)(image, boxes), strict=True):
        np.testing.assert_array_equal(person.joints, other.joints)


def test_the_configuration_is_that_of_the_training() -> None:
    cfg, trained = load_cfg(YAML), load_cfg(ROOT / "experiments/lspet/people/people_128.yaml")
    trained.defrost()
    trained.MODEL.PRETRAINED = ""  # it needs a package that prediction does not
    assert cfg.MODEL == trained.MODEL
    assert ROOT / cfg.TEST.MODEL_FILE == WEIGHTS


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size <= 10e6
    kinds = {value.dtype.itemsize for value in read_weights(WEIGHTS).values() if value.dim()}
    assert kinds == {2}


def test_git_takes_the_network_and_nothing_else_in_models() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    network = ["README.md", "LICENSE.Apache-2.0.txt", YAML.name, WEIGHTS.name]
    kept = ["README.md", *(f"people/{name}" for name in network)]
    assert all((ROOT / "models" / name).is_file() for name in kept)
    other = ["a.pth", "other/a.yaml", "people/people_128.onnx", "people/a.safetensors"]
    words = ["git", "-C", str(ROOT), "check-ignore", "--no-index"]
    words += [f"models/{name}" for name in (*kept, *other)]
    ignored = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    assert ignored == [f"models/{name}" for name in other]
