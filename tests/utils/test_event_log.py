"""Event files hold what was logged as soon as it is logged."""

from pathlib import Path

import pytest
from desk import read_events
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import SessionLog

from lib.utils.errors import UserError
from lib.utils.event_log import EventLog


def test_entries_are_in_the_file_at_once(tmp_path: Path) -> None:
    """Also of runs that start within the same second."""
    logs = []  # kept open: closing a file writes what is buffered
    for run in range(3):
        logs.append(EventLog(tmp_path / "log"))
        logs[-1].add_scalar("loss", run + 0.5, run)
    files = sorted((tmp_path / "log").iterdir())
    assert len(files) == 3
    for run, path in enumerate(files):
        _, start, scalar = read_events(path)
        assert (start.session_log.status, start.step) == (SessionLog.START, 0)
        assert (scalar.step, scalar.summary.value[0].tag) == (run, "loss")
        assert scalar.summary.value[0].simple_value == run + 0.5


def test_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(UserError, match=r"cannot write logs in .*No space left"):
        EventLog(tmp_path).add_scalar("loss", 1, 1)


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write logs"):
        EventLog(tmp_path / "file")
