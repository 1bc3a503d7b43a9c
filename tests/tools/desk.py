"""A desk: a folder with a data set and a configuration, and the commands run on them."""

import logging
import os
import runpy
import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from tensorboardX.proto.event_pb2 import Event

from lib.config import load_cfg
from lib.core.engine import TrainState
from lib.models import build_model
from lib.utils.checkpoint import read_checkpoint, read_weights, save_weights

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "WORKERS": 0,
    "PRINT_FREQ": 2,
    "DATASET": {"DATASET": "synthetic"},
    "MODEL": {
        "IMAGE_SIZE": [32, 32],
        "HEATMAP_SIZE": [16, 16],
        "PATCH_SIZE": [2, 2],
        "DIM": 32,
        "TRANSFORMER_DEPTH": 3,
        "TRANSFORMER_HEADS": 4,
        "SPARSITY": {"PRUNE_LAYERS": [1], "JOINT_DEPTH": 1},
    },
    "TRAIN": {"BATCH_SIZE_PER_GPU": 8, "END_EPOCH": 2, "LR_STEP": [1]},
}


class Outcome(NamedTuple):
    """The exit code of a command and its output."""

    code: int
    out: str
    err: str

    def fails_with(self, text: str) -> None:
        """Assert exit code 2 and a last line that is an error with that text."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.err
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert text in last


def read_events(path: Path) -> Iterator[Event]:
    """Parse TFRecord frames: length (8 bytes), checksum (4), event, checksum (4)."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


@contextmanager
def open_desk(folder: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> Iterator["Desk"]:
    """Yield a desk in a folder; restore logging afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Desk(folder, people, capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


class Desk:
    """Runs commands, in this process, on a data set and a configuration in a folder."""

    def __init__(self, folder: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.data = folder / "data"
        shutil.copytree(people, self.data)
        self.yaml = folder / "small.yaml"
        self.yaml.write_text(yaml.safe_dump(SMALL))
        self.results = folder / "output/synthetic/pose_tokenpose_s/small"

    def run(self, tool: str, *words: object) -> Outcome:
        old = sys.argv
        sys.argv = [tool, *map(str, words)]
        self.capsys.readouterr()
        try:
            runpy.run_path(str(ROOT / "tools" / f"{tool}.py"), run_name="__main__")
            code = 0
        except SystemExit as exit_:
            code = exit_.code
        finally:
            sys.argv = old
        return Outcome(code, *self.capsys.readouterr())

    def words(self, *opts: object) -> list[str]:
        """The arguments of a command on this desk's configuration."""
        folders = ("--modelDir", self.folder / "output", "--logDir", self.folder / "log")
        words = ("--cfg", self.yaml, *folders, "DATASET.ROOT", self.data, *opts)
        return [str(word) for word in words]

    def on_cfg(self, tool: str, *opts: object) -> Outcome:
        return self.run(tool, *self.words(*opts))

    def save_random_weights(self, path: Path | None = None) -> Path:
        """Save random weights of the network; by default as the run's final weights."""
        path = path or self.results / "final_state.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        save_weights(build_model(load_cfg(self.yaml)).state_dict(), path)
        return path

    def train_and_stop(self, step: int, *opts: object) -> Outcome:
        """Train, and send SIGTERM in the given step, counted from 1."""
        original, count = TrainState.step, 0

        def stopping(state: TrainState, *arguments: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(state, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainState, "step", stopping)
            return self.on_cfg("train", *opts)

    def check_exact_resume(self, *opts: object) -> None:
        """Train; then train again, stop in the second epoch, resume: the weights are equal."""
        trained = self.on_cfg("train", *opts)
        assert trained.code == 0, trained.err
        expected = read_weights(self.results / "final_state.pth")
        shutil.rmtree(self.results)
        # Stopped by a signal, because a lower END_EPOCH would change the learning rates.
        assert self.train_and_stop(4, *opts).code == 130
        progress = read_checkpoint(self.results / "checkpoint.pth")["progress"]
        assert (progress["epoch"], progress["step"]) == (1, 1)
        assert not (self.results / "final_state.pth").exists()
        resumed = self.on_cfg("train", *opts, "AUTO_RESUME", True)
        assert resumed.code == 0, resumed.err
        weights = read_weights(self.results / "final_state.pth")
        assert weights.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in weights.items())
