"""TensorBoard event files, written synchronously."""

import re
import time
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from lib.utils.errors import as_user_error


class EventLog:
    """A new event file in a folder; an entry is in the file when the call returns.

    TensorBoard hides what older files of the folder have from `step` on. tensorboardX's own writer
    is a thread: a killed run loses entries, and a full disk, here a UserError, blocks it forever.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._problem = f"cannot write logs in {folder}"
        with as_user_error(self._problem):
            folder.mkdir(parents=True, exist_ok=True)
            number = sum(1 for _ in folder.glob("events.*"))  # names have a resolution of seconds
            self._file = EventsWriter(str(folder / "events"), f".{number:04d}")
        self._write(Event(session_log=SessionLog(status=SessionLog.START), step=step))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write a number; in `tag`, TensorBoard has no characters such as spaces."""
        content = summary.scalar(re.sub(r"[^-/\w.]", "_", tag), value)
        self._write(Event(summary=content, step=step))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with as_user_error(self._problem):
            self._file.write_event(event)
            self._file.flush()
