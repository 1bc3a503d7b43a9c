"""From pictures, videos and the camera to people on disk: read, find, draw, write.

A thread reads ahead, another finds people, and this one draws and writes, so that neither files nor
codecs keep the network waiting. Whatever ends the work, what was done is kept.
"""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.core.prediction.detectors import Finder
from lib.core.prediction.people import FindsJoints, Person, coco_entry, paint_people, write_coco
from lib.dataset.boxes import BoxFile
from lib.dataset.media import Frame, Medium, Video, read_picture, writing_video
from lib.dataset.transforms import fault_of_box
from lib.utils.drawing import save_image
from lib.utils.errors import UserError
from lib.utils.threads import ahead
from lib.utils.window import Window, has_screen

log = logging.getLogger(__name__)

WRITES = ("pictures", "video", "json")

_WRITABLE = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_FRAMES_AHEAD = 8
_PICTURES_AHEAD = 2  # they may be large


@dataclass
class Tally:
    """What was done: `frames` are pictures too; `left_out` counts those that could not be read."""

    frames: int = 0
    people: int = 0
    empty: int = 0  # frames without people
    left_out: int = 0
    seconds: float = 0.0


class Prediction:
    """Finds and writes the people of media; `tally` counts, also when something ends the work.

    `writes` are some of WRITES, or None for a picture of each picture, a video of each video, and
    the keypoints of both; of a camera nothing is written unless `writes` says so. UserError where
    a file would be written over its input.
    """

    def __init__(
        self,
        media: Sequence[Medium],
        predictor: FindsJoints,
        finder: Finder,
        folder: Path,
        *,
        writes: Sequence[str] | None = None,
        boxes: BoxFile | None = None,
    ) -> None:
        self.media = media
        self.predictor = predictor
        self.finder = finder
        self.folder = folder
        self.writes = writes
        self.tally = Tally()
        self.files = _output_files(media, folder)
        self._image_ids = _image_ids(media, boxes)
        self._told: set[Medium] = set()  # of whose boxes a fault was told
        sources = [medium.source for medium in media] + ([str(boxes.path)] if boxes else [])
        if writes is not None and not any(
            self._asks(what, medium) for medium in media for what in _fitting(medium)
        ):
            raise UserError(f"--write {','.join(writes)}: there is nothing of that in the input")
        _check_overwriting(self._written_files(), sources)
        if boxes is not None:
            boxes.check(medium.name for medium in media)

    def run(self) -> None:
        """Do everything, pictures first; UserError where nothing at all could be read.

        KeyboardInterrupt comes out after what was done is written.
        """
        start = time.perf_counter()
        pictures = [medium for medium in self.media if medium.kind == "picture"]
        try:
            if pictures:
                self._run_pictures(pictures)
            for medium in self.media:
                if medium.kind != "picture":
                    self._run_video(medium)
        finally:
            self.tally.seconds = time.perf_counter() - start
        if not self.tally.frames:
            raise UserError("nothing could be read; the lines above say why")

    def _asks(self, what: str, medium: Medium) -> bool:
        if self.writes is not None:
            return what in self.writes
        if medium.kind == "camera":
            return False
        return what == ("pictures" if medium.kind == "picture" else "video") or what == "json"

    def _keypoints_file(self, medium: Medium) -> Path:
        if medium.kind == "picture":
            return self.folder / "keypoints.json"
        return self.files[medium].with_suffix(".json")

    def _written_files(self) -> Iterator[Path]:
        for medium, file in self.files.items():
            if self._asks("pictures" if medium.kind == "picture" else "video", medium):
                yield file
            if self._asks("json", medium):
                yield self._keypoints_file(medium)

    def _run_pictures(self, media: list[Medium]) -> None:
        entries: list[dict] = []
        try:
            with (
                logging_redirect_tqdm(),
                tqdm(total=len(media), unit="picture", disable=None, leave=False) as bar,
                closing(ahead(self._read_pictures(media), _PICTURES_AHEAD)) as frames,
                closing(ahead(self._people(frames), _PICTURES_AHEAD)) as found,
            ):
                for frame, people in found:
                    medium = frame.medium
                    entries += self._entries(people, medium, self._image_ids[medium])
                    if not people:
                        log.info("%s: no person found", medium.source)
                    if self._asks("pictures", medium):
                        paint_people(frame.image, people, self.predictor.skeleton)
                        save_image(self.files[medium], frame.image)
                    self._count(people)
                    bar.update(self.tally.frames + self.tally.left_out - bar.n)
        finally:
            if self.tally.frames:
                self._write(entries, media[0])

    def _read_pictures(self, media: Iterable[Medium]) -> Iterator[Frame]:
        for medium in media:
            try:
                yield Frame(read_picture(medium.source), medium)
            except UserError as error:
                log.warning("%s; left out", error)
                self.tally.left_out += 1

    def _run_video(self, medium: Medium) -> None:
        is_camera = medium.kind == "camera"
        if is_camera and not has_screen():
            if self.writes is None:
                raise UserError(
                    "--input: the camera needs a screen to show its picture on, or --write "
                    "video or json, and there is no screen here"
                )
            log.info("no screen here: recording until Ctrl-C")
        try:
            video = Video(medium)
        except UserError as error:
            log.warning("%s; left out", error)
            self.tally.left_out += 1
            return
        with closing(video):
            if is_camera:
                self._run_frames(video, batch_size=1, read_ahead=1, shown=has_screen())
            else:
                self._run_frames(video, self.predictor.batch_size, _FRAMES_AHEAD, shown=False)

    def _run_frames(self, video: Video, batch_size: int, read_ahead: int, shown: bool) -> None:
        medium, file = video.medium, self.files[video.medium]
        before, empty_before = self.tally.frames, self.tally.empty
        entries: list[dict] = []
        stopped: BaseException | None = None
        with ExitStack() as stack:
            stack.enter_context(logging_redirect_tqdm())
            window = stack.enter_context(closing(Window(medium.name))) if shown else None
            write = None
            if self._asks("video", medium):
                _make_folder(file.parent)
                write = stack.enter_context(writing_video(file, video.frame_rate))
            total, unit = video.length or None, "frame"
            bar = stack.enter_context(tqdm(total=total, unit=unit, disable=None, leave=False))
            # What ends the work, be it two Ctrl-C, is held back until all files are whole.
            try:
                with (
                    closing(ahead(iter(video), read_ahead)) as frames,
                    closing(ahead(self._people(frames, batch_size), batch_size)) as found,
                ):
                    for frame, people in found:
                        entries += self._entries(people, medium, frame.number)
                        if shown or write or self._asks("pictures", medium):
                            paint_people(frame.image, people, self.predictor.skeleton)
                        if write:
                            write(frame.image)
                        if self._asks("pictures", medium):
                            save_image(
                                file.with_suffix("") / f"{frame.number:06d}.jpg", frame.image
                            )
                        self._count(people)
                        bar.update()
                        if window and not window.show(frame.image):
                            break
            except BaseException as error:
                stopped = error
        empty = self.tally.empty - empty_before
        if self.tally.frames > before:
            self._write(entries, medium)
        else:
            self.tally.left_out += 1
        if empty:
            log.info("%s: no person found in %d frames", medium.source, empty)
        if stopped is not None:
            raise stopped

    def _people(
        self, frames: Iterable[Frame], batch_size: int | None = None
    ) -> Iterator[tuple[Frame, list[Person]]]:
        held: deque[Frame] = deque()

        def pictures() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for frame in frames:
                held.append(frame)
                yield frame.image, self._boxes(frame)

        for people in self.predictor.many(pictures(), batch_size):
            yield held.popleft(), people

    def _boxes(self, frame: Frame) -> np.ndarray:
        """The boxes of a frame that can be used; of those that cannot, a line a medium."""
        boxes = self.finder(frame)
        faults = [fault_of_box(box[:4], frame.image.shape) for box in boxes]
        medium = frame.medium
        for box, fault in zip(boxes, faults, strict=True):
            if fault and (frame.number is None or medium not in self._told):
                self._told.add(medium)
                numbers = ", ".join(f"{number:g}" for number in box[:4])
                where = "" if frame.number is None else f", frame {frame.number}"
                later = "" if frame.number is None else ", as are others like it in this video"
                log.warning(
                    "%s%s: the box (%s) %s; left out%s", medium.source, where, numbers, fault, later
                )
        return boxes[[fault is None for fault in faults]]

    def _entries(self, people: Sequence[Person], medium: Medium, image_id: int) -> list[dict]:
        if not self._asks("json", medium):
            return []
        return [coco_entry(person, image_id, medium.name) for person in people]

    def _write(self, entries: list[dict], medium: Medium) -> None:
        if self._asks("json", medium):
            file = self._keypoints_file(medium)
            _make_folder(file.parent)
            write_coco(file, entries)

    def _count(self, people: Sequence[Person]) -> None:
        self.tally.frames += 1
        self.tally.people += len(people)
        self.tally.empty += not people


def _fitting(medium: Medium) -> tuple[str, ...]:
    """What can be written of a medium, of WRITES."""
    return ("pictures", "json") if medium.kind == "picture" else WRITES


def _output_files(media: Iterable[Medium], folder: Path) -> dict[Medium, Path]:
    """A name of its own for each medium, as its own where that is free and can be written."""
    files: dict[Medium, Path] = {}
    taken = {folder / "keypoints.mp4"}  # its keypoints would be taken for the pictures'
    for medium in media:
        path = folder / medium.name
        if medium.kind != "picture":
            path = path.with_suffix(".mp4")
        elif path.suffix.lower() not in _WRITABLE:
            path = path.with_name(path.name + ".png")
        stem, number = path.stem, 1
        while path in taken:
            number += 1
            path = path.with_stem(f"{stem}_{number}")
        taken.add(path)
        files[medium] = path
    return files


def _image_ids(media: Iterable[Medium], boxes: BoxFile | None) -> dict[Medium, int]:
    """The number of each picture: as the boxes say, else as all names say, else from 0 on.

    What the boxes do not speak of has no people and so no entries: its number is not seen.
    """
    pictures = [medium for medium in media if medium.kind == "picture"]
    known = [medium for medium in pictures if boxes is not None and boxes.knows(medium.name)]
    told = {medium: boxes.image_id(medium.name) for medium in known}
    if told and None not in told.values():
        return {medium: told.get(medium, -1) for medium in pictures}
    stems = [Path(medium.name).stem for medium in pictures]
    if all(stem.isdecimal() for stem in stems) and len({*map(int, stems)}) == len(stems):
        return {medium: int(stem) for medium, stem in zip(pictures, stems, strict=True)}
    return {medium: index for index, medium in enumerate(pictures)}


def _check_overwriting(files: Iterable[Path], sources: Iterable[str]) -> None:
    inputs = {Path(source).resolve() for source in sources}
    for file in files:
        if file.resolve() in inputs:
            raise UserError(f"--out: {file} would be written over the input; name another folder")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make the folder {folder}: {error.strerror}") from error
