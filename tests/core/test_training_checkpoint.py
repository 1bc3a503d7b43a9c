"""Checkpoints of format 1, of the first version: their training continues, their weights load.

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
from lib.dataset.synthetic.people import make_synthetic
from lib.models import build_model
from lib.utils.checkpoint import load_weights, read_checkpoint
from lib.utils.distributed import Distributed

FIXTURE = Path(__file__).parents[1] / "fixtures/format_1"


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """The run of the fixture, resumed."""
    make_synthetic(tmp_path / "data", {"train": 20, "valid": 6}, seed=0, image_size=64)
    shutil.copy(FIXTURE / "checkpoint.pth", tmp_path)
    opts = ["AUTO_RESUME", "True", "DATASET.ROOT", str(tmp_path / "data")]
    cfg = load_cfg(FIXTURE / "small.yaml", opts)
    return Trainer(cfg, Distributed(torch.device("cpu")), tmp_path, tmp_path / "log")


def test_the_run_continues_as_if_it_was_never_stopped(trainer: Trainer, tmp_path: Path) -> None:
    assert (trainer.progress.epoch, trainer.progress.step) == (1, 2)
    trainer.run()
    old = json.loads((FIXTURE / "history.json").read_text())
    new = json.loads((tmp_path / "history.json").read_text())
    for then, now in zip(old, new, strict=True):
        assert now["loss"] == pytest.approx(then["loss"], rel=1e-6)
        assert now["lr"] == then["rate"]
        assert "rate" not in now


def test_weights_keep_their_order_and_batch_norm_its_counters(trainer: Trainer) -> None:
    """The optimizer's state is stored by the order of the weights."""
    old = read_checkpoint(FIXTURE / "checkpoint.pth")["model"]
    now = trainer.state.network.state_dict()
    assert list(now) == [name.replace("stem.", "backbone.") for name in old]
    assert now["backbone.bn1.num_batches_tracked"] == old["stem.bn1.num_batches_tracked"] == 5


def test_the_weights_load(caplog: pytest.LogCaptureFixture) -> None:
    network = build_model(load_cfg(FIXTURE / "small.yaml"))
    with caplog.at_level("INFO"):
        load_weights(network, FIXTURE / "checkpoint.pth")
    assert "unused" not in caplog.text
    old = read_checkpoint(FIXTURE / "checkpoint.pth")["model"]
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, old[name.replace("backbone.", "stem.")]), name


def test_no_key_counts_as_changed(trainer: Trainer) -> None:
    """Keys of today that format 1 does not have are at their defaults, which is no change."""
    changed = training_checkpoint.changed_keys(FIXTURE / "checkpoint.pth", trainer.cfg.dump())
    assert changed == ["DATASET.ROOT"]
