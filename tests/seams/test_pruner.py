"""A pruning rule from outside `lib` works in every command, as a value of MODEL.SPARSITY.PRUNE."""

from pathlib import Path

import pytest
import torch
from desk import Desk
from toy_pruner import PopularTokens

from lib.config import load_cfg
from lib.models import build_model
from lib.models.pruning import PRUNERS

KEY = ("MODEL.SPARSITY.PRUNE", "popular")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRUNERS, "popular", PopularTokens())


@pytest.fixture
def weights(desk: Desk) -> Path:
    return desk.save_random_weights()


def test_it_trains_and_prunes(desk: Desk) -> None:
    trained = desk.on_cfg("train", *KEY, "TRAIN.END_EPOCH", 1)
    assert trained.code == 0, trained.err
    model = build_model(load_cfg(desk.yaml, KEY)).eval()
    stages = []
    model(torch.randn(2, 3, 32, 32), stages)
    assert [stage.token_indices.shape for stage in stages] == [(2, 16 + 12)]  # ceil(0.7 · 16)


def test_a_typo_is_refused_with_the_known_rules(desk: Desk) -> None:
    wrong = desk.on_cfg("train", "MODEL.SPARSITY.PRUNE", "populer")
    wrong.fails_with("be one of none, connection, token, popular")


def test_it_is_exported(desk: Desk, weights: Path) -> None:
    exported = desk.on_cfg("export", *KEY)
    assert exported.code == 0, exported.err
    eager = desk.on_cfg("test", *KEY)
    onnx = desk.on_cfg("test", *KEY, "TEST.MODEL_FILE", weights.with_suffix(".onnx"))
    assert onnx.code == 0, onnx.err
    assert onnx.out == eager.out


def test_it_has_a_row_in_the_benchmark(desk: Desk) -> None:
    options = ("--no-training", "--rounds", 1, "--batch", 1, "--precision", "fp32")
    done = desk.on_cfg("benchmark", *options)
    assert done.code == 0, done.err
    assert "| popular |" in done.out


def test_it_is_inspected(desk: Desk, weights: Path) -> None:
    image = desk.data / "images/valid_000001.jpg"
    done = desk.on_cfg("inspect_sparsity", "--input", image, *KEY)
    assert done.code == 0, done.err
    text = (desk.results / "inspect/valid_000001/index.html").read_text()
    assert '["pruning","popular: ' in text
    assert text.count('"attendedBy":') == 1  # the stage
