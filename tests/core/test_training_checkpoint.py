"""Checkpoints of format 1, the first version: training resumes from them, their weights load.

`tests/fixtures/format_1`: a run of `small.yaml` that was stopped in epoch 1 at step 2 of 3, and the
history of the same run without a stop.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lib.config import load_cfg
from lib.core import training_checkpoint
from lib.core.trainer import Trainer
from lib.models import build_model
from lib.utils.checkpoint import load_weights, read_checkpoint
from lib.utils.distributed import Distributed

FIXTURE = Path(__file__).parents[1] / "fixtures/format_1"


@pytest.fixture
def trainer(tmp_path: Path, people: Path) -> Trainer:
    """The run of the fixture, resumed."""
    shutil.copy(FIXTURE / "checkpoint.pth", tmp_path)
    opts = ["AUTO_RESUME", "True", "DATASET.ROOT", str(people)]
    cfg = load_cfg(FIXTURE / "small.yaml", opts)
    return Trainer(cfg, Distributed(torch.device("cpu")), tmp_path, tmp_path / "log")


def test_the_resumed_run_equals_the_uninterrupted_one(trainer: Trainer, tmp_path: Path) -> None:
    assert (trainer.progress.epoch, trainer.progress.step) == (1, 2)
    trainer.run()
    old = json.loads((FIXTURE / "history.json").read_text())
    new = json.loads((tmp_path / "history.json").read_text())
    for expected, entry in zip(old, new, strict=True):
        assert entry["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert entry["lr"] == expected["rate"]  # its name in format 1
        assert "rate" not in entry


def test_weights_keep_their_order_and_batch_norm_its_counters(trainer: Trainer) -> None:
    """The optimizer's state is stored by the order of the weights."""
    old = read_checkpoint(FIXTURE / "checkpoint.pth")["model"]
    weights = trainer.state.network.state_dict()
    assert list(weights) == [name.replace("stem.", "backbone.") for name in old]
    assert weights["backbone.bn1.num_batches_tracked"] == old["stem.bn1.num_batches_tracked"] == 5


def test_the_weights_load(caplog: pytest.LogCaptureFixture) -> None:
    network = build_model(load_cfg(FIXTURE / "small.yaml"))
    with caplog.at_level("INFO"):
        load_weights(network, FIXTURE / "checkpoint.pth")
    assert "unused" not in caplog.text
    old = read_checkpoint(FIXTURE / "checkpoint.pth")["model"]
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, old[name.replace("backbone.", "stem.")]), name


def test_missing_keys_do_not_count_as_changed(trainer: Trainer) -> None:
    """A key that the file does not have counts as its default."""
    changed = training_checkpoint.changed_keys(FIXTURE / "checkpoint.pth", trainer.cfg.dump())
    assert changed == ["DATASET.ROOT"]
