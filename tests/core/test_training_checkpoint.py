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
from lib.core.engine import StepResult, TrainState
from lib.core.trainer import Trainer
from lib.models import build_model
from lib.utils.checkpoint import load_weights, read_checkpoint
from lib.utils.distributed import Distributed
from lib.utils.errors import UserError

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


def rates(trainer: Trainer) -> list[float]:
    """The learning rate of every step until the end of the training."""
    values = []
    step = type(trainer.state).step

    def record(state: TrainState, *arguments: object) -> StepResult:
        values.append(state.optimizer.param_groups[-1]["lr"])
        return step(state, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trainer.state), "step", record)
        trainer.run()
    return values


@pytest.mark.filterwarnings("error:.*lr_scheduler")
# Steps; an epoch has three.
@pytest.mark.parametrize(("optimizer", "stop"), [("sgd", 1), ("adam", 3), ("adamw", 4)])
def test_a_run_resumed_with_other_settings_has_the_rates_of_its_new_schedule(
    tmp_path: Path, people: Path, optimizer: str, stop: int
) -> None:
    opts = ["DATASET.ROOT", str(people), "TRAIN.OPTIMIZER", optimizer, "TRAIN.WARMUP_STEPS", 2]
    opts += ["TRAIN.LR_SCHEDULER", "CosineAnnealingLR", "TRAIN.LR_END", 1e-5, "AUTO_RESUME", True]
    new = ["TRAIN.LR", 1e-2, "TRAIN.WD", 0.5, "TRAIN.MOMENTUM", 0.7]

    def trainer(name: str, *changes: object) -> Trainer:
        cfg = load_cfg(FIXTURE / "small.yaml", [*opts, "TRAIN.LR", 1e-3, *changes])
        return Trainer(cfg, Distributed(torch.device("cpu")), tmp_path / name, tmp_path / "log")

    expected = rates(trainer("whole", *new))
    save = Trainer._save_checkpoint

    def save_and_stop(trainer: Trainer) -> None:
        save(trainer)
        if trainer.state.scheduler.last_epoch == stop:
            raise KeyboardInterrupt

    stopped = trainer("stopped", "TRAIN.CHECKPOINT_STEPS", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            stopped.run()
    resumed = trainer("stopped", *new)
    assert resumed.state.scheduler.last_epoch == stop
    assert rates(resumed) == expected[stop:]
    assert resumed.state.optimizer.param_groups[-1]["lr"] == pytest.approx(1e-5)
    assert resumed.progress.history[-1]["lr"] == pytest.approx(1e-5)
    group = resumed.state.optimizer.param_groups[0]
    assert group.get("momentum", 0.7) == 0.7
    assert optimizer == "adam" or group["weight_decay"] == 0.5


def test_moments_of_other_groups_are_refused(tmp_path: Path, people: Path) -> None:
    """The backbone's own learning rate makes two groups of one."""
    opts = ["DATASET.ROOT", str(people), "AUTO_RESUME", True, "TRAIN.OPTIMIZER", "adam"]

    def trainer(*changes: object) -> Trainer:
        cfg = load_cfg(FIXTURE / "small.yaml", [*opts, "TRAIN.LR", 1e-3, *changes])
        return Trainer(cfg, Distributed(torch.device("cpu")), tmp_path, tmp_path / "log")

    trainer("TRAIN.END_EPOCH", 1).run()
    with pytest.raises(UserError, match=r"checkpoint\.pth does not fit .*BACKBONE_LR"):
        trainer("TRAIN.BACKBONE_LR", 1e-4)
    with pytest.raises(UserError, match=r"checkpoint\.pth .*model"):
        trainer("MODEL.DIM", 16)
