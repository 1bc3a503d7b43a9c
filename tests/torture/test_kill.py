"""A training that is killed many times ends like an uninterrupted one, bit for bit."""

import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import ROOT, Desk
from torch import Tensor

from lib.core import training_checkpoint
from lib.utils.checkpoint import read_checkpoint, read_weights

OPTS = (
    "WORKERS", 1, "SEED", 5, "AUTO_RESUME", "True",
    "TRAIN.END_EPOCH", 100, "TRAIN.LR_STEP", "[30, 60]",
    "TRAIN.CHECKPOINT_STEPS", 2, "TRAIN.EMA_DECAY", 0.9,
    "MODEL.DROP_PATH", 0.3, "DATASET.COLOR", 0.3, "DATASET.CUTOUT", 0.5,
)  # fmt: skip
PLAN = {"any time": 4, "after progress": 10, "writing": 8}
REQUIRED = {"kills": 20, "writing": 5, "after progress": 15}
MAX_STARTS = 60
TIMEOUT = 240  # seconds; no start takes as long

Version = tuple[int, int, int] | None


class Run:
    """A training in its own folder, restarted as often as needed."""

    def __init__(self, desk: Desk, name: str) -> None:
        folder = desk.folder / name
        folder.mkdir()
        self.results = folder / "output/synthetic/pose_tokenpose_s/small"
        self.checkpoint = self.results / "checkpoint.pth"
        self.temporary = self.results / ".part.checkpoint.pth"
        self.output = folder / "output.txt"
        words = desk.words(
            *OPTS, "OUTPUT_DIR", folder / "output", "LOG_DIR", folder / "log",
        )  # fmt: skip
        self.command = [sys.executable, str(ROOT / "tools/train.py"), *words]

    def start(self) -> subprocess.Popen:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.output.open("ab") as output:
            return subprocess.Popen(
                self.command, stdout=output, stderr=output, env=env, start_new_session=True
            )

    def progress(self) -> tuple[int, int]:
        """Epoch and step that the next start resumes from."""
        paths = training_checkpoint.candidates(self.checkpoint)
        if not paths:
            return 0, 0
        progress = training_checkpoint.read(paths)[1]["progress"]
        return progress["epoch"], progress["step"]

    def last_lines(self) -> str:
        return "\n".join(self.output.read_text().splitlines()[-5:])


def version(path: Path) -> Version:
    """A value that changes whenever a file is written; None if it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def wait_for_write(path: Path, before: Version, process: subprocess.Popen) -> None:
    """Return as soon as writing of a file begins, or the process has ended."""
    deadline = time.monotonic() + TIMEOUT
    while version(path) in (None, before) and process.poll() is None:
        assert time.monotonic() < deadline, "the training hangs"


def at_any_time(run: Run, process: subprocess.Popen, rng: random.Random) -> None:
    time.sleep(rng.uniform(0, 6))


def after_progress(run: Run, process: subprocess.Popen, rng: random.Random) -> None:
    wait_for_write(run.checkpoint, version(run.checkpoint), process)
    time.sleep(rng.uniform(0, 0.6))


def while_writing(run: Run, process: subprocess.Popen, rng: random.Random) -> None:
    for _ in range(rng.randrange(4)):
        wait_for_write(run.checkpoint, version(run.checkpoint), process)
    wait_for_write(run.temporary, version(run.temporary), process)


MOMENTS: dict[str, Callable[[Run, subprocess.Popen, random.Random], None]] = {
    "any time": at_any_time,
    "after progress": after_progress,
    "writing": while_writing,
}


def moments(rng: random.Random, counts: Counter[str]) -> Iterator[str]:
    """When to kill: as planned, in random order, then what is still required."""
    plan = [name for name, times in PLAN.items() for _ in range(times)]
    rng.shuffle(plan)
    yield from plan
    while missing := [name for name in REQUIRED if counts[name] < REQUIRED[name]]:
        yield "writing" if "writing" in missing else "after progress"


def start_and_kill(run: Run, moment: str, rng: random.Random, counts: Counter[str]) -> int:
    """Start a run, kill its processes at some moment; count its state, return its exit code."""
    before, before_start = run.progress(), version(run.temporary)
    process = run.start()
    MOMENTS[moment](run, process, rng)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    if process.wait(TIMEOUT) != -signal.SIGKILL:
        return process.returncode
    written, after = version(run.temporary), run.progress()
    counts["kills"] += 1
    counts["writing"] += written is not None and written != before_start
    counts["incomplete"] += (
        written is not None
        and written != before_start
        and written[2] < run.checkpoint.stat().st_size
    )
    counts["after progress"] += after > before
    assert after >= before, f"went back from {before} to {after}"
    return process.returncode


def test_kills_do_not_change_the_weights(desk: Desk) -> None:
    whole = Run(desk, "whole")
    assert whole.start().wait(TIMEOUT) == 0, whole.last_lines()
    rng, counts = random.Random(0), Counter()
    run, runs, lost = Run(desk, "killed_0"), 1, []
    for start, moment in enumerate(moments(rng, counts)):
        assert start < MAX_STARTS, f"too few kills at the required moments: {dict(counts)}"
        code = start_and_kill(run, moment, rng, counts)
        if code == -signal.SIGKILL:
            continue
        # It finished before the kill: continue with a new run.
        lost += [f"{code}: {run.last_lines()}"] if code else differences(whole, run)[:1]
        run, runs = Run(desk, f"killed_{runs}"), runs + 1
    code = run.start().wait(TIMEOUT)
    lost += [f"{code}: {run.last_lines()}"] if code else differences(whole, run)[:1]
    print(
        f"\nkills {counts['kills']}, of them {counts['writing']} while a checkpoint was written "
        f"({counts['incomplete']} incomplete), {counts['after progress']} after progress; "
        f"of {runs} runs {len(lost)} lost"
    )
    assert not lost


def differences(one: Run, other: Run) -> list[str]:
    """The names of the files and values in which two finished runs differ."""
    names = []
    for stem in ("final_state", "model_best"):
        for kind in (".pth", ".safetensors"):
            weights = [read_weights(run.results / f"{stem}{kind}") for run in (one, other)]
            names += unequal(*weights, f"{stem}{kind}")
    histories = [(run.results / "history.json").read_text() for run in (one, other)]
    names += unequal(*histories, "history.json")
    states = [read_checkpoint(run.checkpoint) for run in (one, other)]
    for content in states:
        assert content["ema"]
        assert content["progress"]["epoch"] == OPTS[OPTS.index("TRAIN.END_EPOCH") + 1]
        del content["provenance"]  # names the folder
    return names + unequal(*states, "checkpoint.pth")


def unequal(one: Any, other: Any, name: str) -> list[str]:
    """The paths at which two values differ in any bit."""
    if isinstance(one, dict | list | tuple) and type(one) is type(other) and len(one) == len(other):
        if not isinstance(one, dict):
            one, other = dict(enumerate(one)), dict(enumerate(other))
        if one.keys() == other.keys():
            return [path for key in one for path in unequal(one[key], other[key], f"{name}/{key}")]
        return [name]
    return [] if bits(one) == bits(other) else [name]


def bits(value: Any) -> tuple:
    if isinstance(value, Tensor):
        return str(value.dtype), value.shape, value.contiguous().numpy().tobytes()
    return type(value), struct.pack("d", value) if isinstance(value, float) else value


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), ([1], [1, 2]), ({"a": 1}, {"a": True})])
def test_the_comparison_detects_every_bit(one: object, other: object) -> None:
    assert unequal(one, other, "it")
    assert not unequal(one, one, "it")
