"""What the tests of the seams share."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from desk import Desk, open_desk

from lib.core.engine import TrainState
from lib.dataset.synthetic.people import make_synthetic
from lib.utils.checkpoint import read_weights


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few synthetic people."""
    root = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(root, {"train": 20, "valid": 6}, seed=0, image_size=64)
    return root


@pytest.fixture
def desk(tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    with open_desk(tmp_path, people, capsys) as desk:
        yield desk


@pytest.fixture
def trains_and_resumes(desk: Desk) -> Callable[[Path], None]:
    """Train, and interrupt and resume a second training: both end with the same weights."""

    def check(folder: Path) -> None:
        trained = desk.on_cfg("train")
        assert trained.code == 0, trained.err
        expected = read_weights(folder / "final_state.pth")
        shutil.rmtree(folder)
        stopped = _train_until(desk, step=4)
        assert stopped == 130
        assert (folder / "checkpoint.pth").exists()
        assert not (folder / "final_state.pth").exists()
        resumed = desk.on_cfg("train", "AUTO_RESUME", True)
        assert resumed.code == 0, resumed.err
        weights = read_weights(folder / "final_state.pth")
        assert weights.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in weights.items())

    return check


def _train_until(desk: Desk, step: int) -> int:
    """Train with a SIGTERM during a step; return the exit code."""
    original, count = TrainState.step, 0

    def stopping(state: TrainState, *arguments: object) -> object:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(state, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainState, "step", stopping)
        return desk.on_cfg("train").code
