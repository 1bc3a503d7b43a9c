"""A desk: a folder with a data set and a configuration, and commands that run on them."""

import logging
import runpy
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

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


@contextmanager
def open_desk(folder: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> Iterator["Desk"]:
    """Yield a desk in a folder; restore logging afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Desk(folder, people, capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


class Desk:
    """A folder with a data set, a configuration, and commands run on them in this process."""

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
