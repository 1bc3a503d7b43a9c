"""A training that is killed again and again ends as one that nobody disturbs, bit for bit."""

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

from lib.core import state
from lib.utils.checkpoint import read_checkpoint, read_weights

OPTS = (
    "WORKERS", 1, "SEED", 5, "AUTO_RESUME", "True",
    "TRAIN.END_EPOCH", 100, "TRAIN.LR_STEP", "[30, 60]",
    "TRAIN.CHECKPOINT_STEPS", 2, "TRAIN.EMA_DECAY", 0.9,
    "MODEL.DROP_PATH", 0.3, "DATASET.COLOR", 0.3, "DATASET.CUTOUT", 0.5,
)  # fmt: skip
PLAN = {"any time": 4, "after progress": 10, "writing": 8}
WANTED = {"kills": 20, "writing": 5, "after progress": 15}
MOST_STARTS = 60
HANGS = 240  # seconds; no start takes as long

Mark = tuple[int, int, int] | None


class Run:
    """A training in a folder of its own, started as often as it takes."""

    def __init__(self, desk: Desk, name: str) -> None:
        folder = desk.folder / name
        folder.mkdir()
        self.results = folder / "output/synthetic/pose_tokenpose_s/small"
        self.checkpoint = self.results / "checkpoint.pth"
        self.part = self.results / ".part.checkpoint.pth"
        self.said = folder / "said.txt"
        words = desk.words(
            *OPTS, "OUTPUT_DIR", folder / "output", "LOG_DIR", folder / "log",
        )  # fmt: skip
        self.command = [sys.executable, str(ROOT / "tools/train.py"), *words]

    def start(self) -> subprocess.Popen:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.said.open("ab") as said:
            return subprocess.Popen(
                self.command, stdout=said, stderr=said, env=env, start_new_session=True
            )

    def progress(self) -> tuple[int, int]:
        """Epoch and step that the next start goes on from."""
        found = state.candidates(self.checkpoint)
        if not found:
            return 0, 0
        progress = state.read(found)[1]["progress"]
        return progress["epoch"], progress["step"]

    def last_words(self) -> str:
        return "\n".join(self.said.read_text().splitlines()[-5:])


def mark(path: Path) -> Mark:
    """What changes whenever a file is written anew; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def wait_for_news(path: Path, before: Mark, process: subprocess.Popen) -> None:
    """Return at once when a file is written, also if only begun, or when the process ended."""
    deadline = time.monotonic() + HANGS
    while mark(path) in (None, before) and process.poll() is None:
        assert time.monotonic() < deadline, "the training hangs"


def at_any_time(run: Run, process: subprocess.Popen, choose: random.Random) -> None:
    time.sleep(choose.uniform(0, 6))


def after_progress(run: Run, process: subprocess.Popen, choose: random.Random) -> None:
    wait_for_news(run.checkpoint, mark(run.checkpoint), process)
    time.sleep(choose.uniform(0, 0.6))


def while_writing(run: Run, process: subprocess.Popen, choose: random.Random) -> None:
    for _ in range(choose.randrange(4)):
        wait_for_news(run.checkpoint, mark(run.checkpoint), process)
    wait_for_news(run.part, mark(run.part), process)


MOMENTS: dict[str, Callable[[Run, subprocess.Popen, random.Random], None]] = {
    "any time": at_any_time,
    "after progress": after_progress,
    "writing": while_writing,
}


def moments(choose: random.Random, counts: Counter[str]) -> Iterator[str]:
    """When to kill: as planned, in no order, then what is still wanted."""
    plan = [name for name, times in PLAN.items() for _ in range(times)]
    choose.shuffle(plan)
    yield from plan
    while missing := [name for name in WANTED if counts[name] < WANTED[name]]:
        yield "writing" if "writing" in missing else "after progress"


def start_and_kill(run: Run, moment: str, choose: random.Random, counts: Counter[str]) -> int:
    """Start a run, kill all its processes at some moment; count how it was met, return its code."""
    before, begun = run.progress(), mark(run.part)
    process = run.start()
    MOMENTS[moment](run, process, choose)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    if process.wait(HANGS) != -signal.SIGKILL:
        return process.returncode
    left, after = mark(run.part), run.progress()
    counts["kills"] += 1
    counts["writing"] += left is not None and left != begun
    counts["torn"] += left is not None and left != begun and left[2] < run.checkpoint.stat().st_size
    counts["after progress"] += after > before
    assert after >= before, f"went back from {before} to {after}"
    return process.returncode


def test_kills_leave_no_trace_in_the_weights(desk: Desk) -> None:
    whole = Run(desk, "whole")
    assert whole.start().wait(HANGS) == 0, whole.last_words()
    choose, counts = random.Random(0), Counter()
    run, runs, lost = Run(desk, "killed_0"), 1, []
    for start, moment in enumerate(moments(choose, counts)):
        assert start < MOST_STARTS, f"too few kills met what they should: {dict(counts)}"
        code = start_and_kill(run, moment, choose, counts)
        if code == -signal.SIGKILL:
            continue
        # It came to its end before the kill: another one takes the next.
        lost += [f"{code}: {run.last_words()}"] if code else differences(whole, run)[:1]
        run, runs = Run(desk, f"killed_{runs}"), runs + 1
    code = run.start().wait(HANGS)
    lost += [f"{code}: {run.last_words()}"] if code else differences(whole, run)[:1]
    print(
        f"\nkills {counts['kills']}, of them {counts['writing']} while a checkpoint was written "
        f"({counts['torn']} left it torn), {counts['after progress']} after progress; "
        f"of {runs} runs {len(lost)} lost"
    )
    assert not lost


def differences(one: Run, other: Run) -> list[str]:
    """The names of what two finished runs do not have in common."""
    found = []
    for stem in ("final_state", "model_best"):
        for kind in (".pth", ".safetensors"):
            weights = [read_weights(run.results / f"{stem}{kind}") for run in (one, other)]
            found += unequal(*weights, f"{stem}{kind}")
    histories = [(run.results / "history.json").read_text() for run in (one, other)]
    found += unequal(*histories, "history.json")
    states = [read_checkpoint(run.checkpoint, sealed=True) for run in (one, other)]
    for content in states:
        assert content["ema"]
        assert content["progress"]["epoch"] == OPTS[OPTS.index("TRAIN.END_EPOCH") + 1]
        del content["made"]  # names the folder
    return found + unequal(*states, "checkpoint.pth")


def unequal(one: Any, other: Any, name: str) -> list[str]:
    """The names of the parts of two values that are not the same in every bit."""
    if isinstance(one, dict | list | tuple) and type(one) is type(other) and len(one) == len(other):
        if not isinstance(one, dict):
            one, other = dict(enumerate(one)), dict(enumerate(other))
        if one.keys() == other.keys():
            return [part for key in one for part in unequal(one[key], other[key], f"{name}/{key}")]
        return [name]
    return [] if bits(one) == bits(other) else [name]


def bits(value: Any) -> tuple:
    if isinstance(value, Tensor):
        return str(value.dtype), value.shape, value.contiguous().numpy().tobytes()
    return type(value), struct.pack("d", value) if isinstance(value, float) else value


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), ([1], [1, 2]), ({"a": 1}, {"a": True})])
def test_the_comparison_sees_every_bit(one: object, other: object) -> None:
    assert unequal(one, other, "it")
    assert not unequal(one, one, "it")
