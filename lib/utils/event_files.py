"""TensorBoard's event files, written at once and read without TensorBoard.

A file is a chain of frames: the length of an event (8 bytes), its checksum, the event, the event's
checksum (TensorFlow's TFRecord). tensorboardX writes them and knows the events' layout.
"""

import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from lib.utils.errors import UserError

Scalars = dict[str, dict[int, float]]  # by tag, then by step

_LARGEST = 1 << 16  # bytes of an event that is read; pictures are larger, and their checksums slow


class EventLog:
    """A new event file in a folder; what is added is in it when the call returns.

    tensorboardX's SummaryWriter leaves the writing to a thread: a run may lose what it said last,
    whatever ends it, and one whose disk is full waits for ever. Here a full disk is a UserError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = sum(1 for _ in folder.glob("events.*"))  # its name tells seconds alone
            self._file = EventsWriter(str(folder / "events"), f".{number:04d}")
        except OSError as error:
            raise self._fault(error) from error

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Note a number."""
        self._add(summary.scalar(tag, value), step)

    def add_image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Note a picture, uint8 [H,W,3]."""
        self._add(summary.image(tag, picture, dataformats="HWC"), step)

    def _add(self, content: Summary, step: int) -> None:
        try:
            self._file.write_event(Event(summary=content, step=step, wall_time=time.time()))
            self._file.flush()
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> UserError:
        return UserError(f"cannot write logs in {self.folder}: {error.strerror or error}")


def read_scalars(folder: Path) -> tuple[Scalars, list[str]]:
    """Read every scalar of a folder's event files, and say in a line each what is damaged.

    What stands before a damage counts. Where a later file starts again at an earlier step, as after
    a restart, what was written from that step on is replaced.
    """
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    faults = []
    for path in sorted(folder.glob("events.out.tfevents.*")):  # by time: it is in their names
        try:
            for tag, step, value in _scalars(path):
                while points[tag] and points[tag][-1][0] >= step:
                    points[tag].pop()
                points[tag].append((step, value))
        except UserError as error:
            faults.append(str(error))
    return {tag: dict(pairs) for tag, pairs in points.items()}, faults


def _scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    for data in _events(path):
        try:
            event = Event.FromString(data)
        except DecodeError as error:
            raise UserError(f"{path}: an entry is no event; what comes before is used") from error
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                yield value.tag, event.step, value.simple_value


def _events(path: Path) -> Iterator[bytes]:
    """The bytes of each event that may be a scalar."""
    try:
        with path.open("rb") as file:
            left = path.stat().st_size
            while left:
                header = file.read(12)
                if len(header) == 12:
                    _check(path, header[:8], header[8:])
                    (length,) = struct.unpack("<Q", header[:8])
                if len(header) < 12 or length + 16 > left:
                    raise UserError(f"{path}: ends within an entry; what comes before is used")
                left -= length + 16
                if length > _LARGEST:
                    file.seek(length + 4, 1)
                    continue
                data, checksum = file.read(length), file.read(4)
                _check(path, data, checksum)
                yield data
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _check(path: Path, data: bytes, checksum: bytes) -> None:
    if struct.pack("<I", masked_crc32c(data)) != checksum:
        raise UserError(f"{path}: damaged, a checksum is wrong; what comes before is used")
