"""The prediction loop: read, detect, predict, track, draw, write.

One thread reads ahead, another detects and predicts, and the caller's thread draws and writes.
Results are kept if the run is interrupted.
"""

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.dataset.images import read_image
from lib.dataset.transforms import box_error
from lib.prediction.detectors import Detector
from lib.prediction.media import Frame, Source
from lib.prediction.output import Options, Plan, Recorder
from lib.prediction.tracking import Tracker
from lib.prediction.video import Video
from lib.predictor import Person, Predictor
from lib.utils.errors import UserError
from lib.utils.prefetch import prefetch
from lib.utils.text import counted, join_names

log = logging.getLogger(__name__)

_PREFETCHED_IMAGES = 2  # they may be large
_PREFETCHED_FRAMES = 16
_PREFETCHED_BYTES = 2**28
_LOG_SECONDS = 30.0  # between two lines of progress


@dataclass(eq=False)
class Prediction:
    """A run over images and videos, counted, also if it is interrupted.

    `frames` counts images too; `failures` has a line per file that is not read or written in full.
    """

    predictor: Predictor
    detector: Detector
    plan: Plan
    options: Options
    frames: int = 0
    people: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    _reported: set[str] = field(default_factory=set)  # problems with boxes

    def run(self) -> None:
        """Process the images, then the videos; at the end UserError if a file failed."""
        start = time.perf_counter()
        images = [source for source in self.plan if source.kind == "image"]
        try:
            if images:
                self._process(self._read_images(images), len(images), _PREFETCHED_IMAGES)
            for source in self.plan:
                if source.kind != "image":
                    self._run_video(source)
        finally:
            self.seconds = time.perf_counter() - start
        if not self.frames:
            raise UserError("no input could be read; the lines above say why")
        if self.failures:
            raise UserError(f"not done in full: {join_names(self.failures, limit=1)}")

    def summary(self) -> str:
        """Return how many people in how many images or frames, and how fast."""
        unit = "image" if all(source.kind == "image" for source in self.plan) else "frame"
        people, frames = counted(self.people, "person", "people"), counted(self.frames, unit)
        return f"{people} in {frames}, {self.frames / self.seconds:.1f} {unit}s/s"

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Report a file that cannot be read or written; the run continues after the block."""
        try:
            yield
        except UserError as error:
            line = " ".join(str(error).split())  # the name of a file may contain a line break
            log.warning("%s", line)
            self.failures.append(line)

    def _read_images(self, images: Iterable[Source]) -> Iterator[Frame]:
        for source in images:
            with self._reporting():
                yield Frame(read_image(source.path, self.options.max_pixels), source)

    def _read_frames(self, video: Video) -> Iterator[Frame]:
        with self._reporting():
            yield from video

    def _run_video(self, source: Source) -> None:
        with self._reporting(), closing(Video(source, self.options.max_pixels)) as video:
            depth = min(_PREFETCHED_FRAMES, 1 + _PREFETCHED_BYTES // video.frame_bytes)
            self._process(self._read_frames(video), video.length or None, depth, video)

    def _process(
        self, frames: Iterator[Frame], count: int | None, depth: int, video: Video | None = None
    ) -> None:
        """Predict and record about `count` frames (None: unknown) of the images, or of a video."""
        name, rate = (video.source.name, video.frame_rate) if video else ("images", Fraction(1))
        options, skeleton = self.options, self.predictor.skeleton
        tracker = Tracker(options.smooth) if video and (options.track or options.smooth) else None
        start = logged = time.monotonic()
        with (
            closing(Recorder(self.plan, skeleton, options, rate, self._reporting)) as recorder,
            logging_redirect_tqdm(),
            tqdm(total=count, desc=name, unit="frame", disable=None, leave=False) as bar,
            closing(prefetch(frames, depth)) as read,
            closing(prefetch(self._predict(read), depth)) as results,
        ):
            for done, (frame, people) in enumerate(results, 1):
                recorder.add(frame, tracker(people, frame.time) if tracker else people)
                if not people and video is None:
                    log.info("%s: no person", frame.source.path)
                self.frames += 1
                self.people += len(people)
                bar.update()
                now = time.monotonic()
                if bar.disable and now - logged >= _LOG_SECONDS:  # there is no terminal for a bar
                    meter = tqdm.format_meter(done, count, now - start, prefix=name, unit="frame")
                    log.info("%s", meter)
                    logged = now

    def _predict(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, list[Person]]]:
        frames, waiting = itertools.tee(frames)
        images = ((frame.image, self._boxes(frame)) for frame in frames)
        yield from zip(waiting, self.predictor.stream(images), strict=True)

    def _boxes(self, frame: Frame) -> np.ndarray:
        """Return the usable boxes of a frame; report each other box once per file."""
        boxes = self.detector(frame)
        problems = [box_error(box[:4], frame.image.shape) for box in boxes]
        for box, problem in zip(boxes, problems, strict=True):
            numbers = ", ".join(f"{number:g}" for number in box[:4])
            line = f"{frame.source.path}: the box ({numbers}) {problem}; ignored"
            if problem and line not in self._reported:
                self._reported.add(line)
                log.warning("%s", line)
        return boxes[[problem is None for problem in problems]]
