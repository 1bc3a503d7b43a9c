"""A network from outside `lib` is trained, tested, exported and used like every other."""

from pathlib import Path

import cv2
import pytest
import torch
import yaml
from desk import SMALL, Desk
from toy_network import TOY_NETWORK

from lib.config import load_cfg
from lib.models import MODELS, build_model
from lib.predictor import Predictor
from lib.utils.checkpoint import load_weights, read_weights


@pytest.fixture(autouse=True)
def _toy_network(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure the toy network; the rules of TokenPose for DIM and PATCH_SIZE do not apply."""
    monkeypatch.setitem(MODELS, "toy", TOY_NETWORK)
    sizes = {"IMAGE_SIZE": [32, 32], "HEATMAP_SIZE": [16, 16], "DIM": 7, "PATCH_SIZE": [5, 5]}
    desk.yaml.write_text(yaml.safe_dump(SMALL | {"MODEL": {"NAME": "toy"} | sizes}))
    desk.results = desk.folder / "output/synthetic/toy/small"


@pytest.fixture
def weights(desk: Desk) -> Path:
    return desk.save_random_weights()


def test_it_trains_resumes_and_is_tested(desk: Desk) -> None:
    desk.check_exact_resume()
    tested = desk.on_cfg("test")
    assert tested.code == 0, tested.err
    assert "| toy |" in tested.out


def test_its_weights_load_by_their_own_names(desk: Desk, weights: Path) -> None:
    """`conv1` and `layer1`, names of TokenPose's stem in published files, are not renamed."""
    model = build_model(load_cfg(desk.yaml))
    load_weights(model, weights)
    expected = read_weights(weights)
    assert "conv1.weight" in expected
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_its_check_runs_before_any_data_is_read(desk: Desk) -> None:
    wrong = desk.on_cfg("train", "MODEL.HEATMAP_SIZE", [8, 8], "DATASET.ROOT", "nowhere")
    wrong.fails_with("MODEL.HEATMAP_SIZE = [8, 8]: must be [16, 16]")


def test_it_is_exported(desk: Desk, weights: Path) -> None:
    exported = desk.on_cfg("export")
    assert exported.code == 0, exported.err
    eager, onnx = (
        desk.on_cfg("test"),
        desk.on_cfg("test", "TEST.MODEL_FILE", weights.with_suffix(".onnx")),
    )
    assert onnx.code == 0, onnx.err
    assert onnx.out == eager.out


def test_it_predicts(desk: Desk, weights: Path) -> None:
    image = cv2.imread(str(desk.data / "images/valid_000001.jpg"))
    (person,) = Predictor(load_cfg(desk.yaml), weights)(image)
    assert person.joints.shape == (16, 2)


def test_inspection_reports_that_it_has_no_attention(desk: Desk, weights: Path) -> None:
    image = desk.data / "images/valid_000001.jpg"
    desk.on_cfg("inspect_sparsity", "--input", image).fails_with("no attention")
