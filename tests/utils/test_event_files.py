"""TensorBoard's logs are read as they were written, up to where they are damaged."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboardX import record_writer

from lib.utils.errors import UserError
from lib.utils.event_files import EventLog, read_scalars


def write(folder: Path, steps: range, tag: str = "train/loss", name: str = "1") -> Path:
    """Write a value of step + 0.5 at each step, and a picture that is larger than any scalar."""
    log = EventLog(folder)
    for step in steps:
        log.add_scalar(tag, step + 0.5, step)
    log.add_image(
        "picture", np.random.default_rng(0).integers(256, size=(200, 200, 3), dtype="u1"), 1
    )
    log.add_scalar("after/picture", 1.0, 1)
    (path,) = (path for path in folder.glob("events*") if ".run" not in path.name)
    return path.rename(folder / f"events.out.tfevents.{name}.run")


def test_scalars_come_back(tmp_path: Path) -> None:
    assert write(tmp_path, range(1, 4)).stat().st_size > 1 << 16
    scalars, faults = read_scalars(tmp_path)
    assert scalars == {"train/loss": {1: 1.5, 2: 2.5, 3: 3.5}, "after/picture": {1: 1.0}}
    assert faults == []
    assert read_scalars(tmp_path / "none") == ({}, [])


def test_a_restart_replaces_what_it_repeats(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8), name="1")
    write(tmp_path, range(3, 5), name="2")
    assert list(read_scalars(tmp_path)[0]["train/loss"]) == [1, 2, 3, 4]


def test_what_is_added_is_there_at_once_and_stays(tmp_path: Path) -> None:
    """Whatever ends the run afterwards, and however soon it begins again."""
    logs = []  # kept open, as closing a file writes what is left
    for run in range(3):
        logs.append(EventLog(tmp_path))
        logs[-1].add_scalar("a", run, run)
        assert read_scalars(tmp_path)[0]["a"][run] == run
    assert list(read_scalars(tmp_path)[0]["a"]) == [0, 1, 2]


def test_logs_that_cannot_be_written_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(UserError, match=r"cannot write logs in .*No space left"):
        EventLog(tmp_path).add_scalar("a", 1, 1)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write logs"):
        EventLog(tmp_path / "file")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_stands_before_a_damage_counts(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = EventLog(folder)
    for step in range(1, 6):
        log.add_scalar("a", step, step)
    (path,) = folder.glob("events*")
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        content = whole[:place]
    else:
        content = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
    path.write_bytes(content)
    scalars, faults = read_scalars(folder)
    steps = list(scalars.get("a", {}))
    assert steps == list(range(1, len(steps) + 1))
    assert all(scalars["a"][step] == step for step in steps)
    assert len(steps) < 5 or not content
    assert len(faults) <= 1
    if len(content) == len(whole):
        assert path.name in faults[0]
