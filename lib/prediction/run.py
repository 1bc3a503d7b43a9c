"""The prediction loop: read, detect, predict, draw, write.

One thread reads ahead, another detects and predicts, and the caller's thread draws and writes.
Results are kept if the run is interrupted.
"""

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.dataset.images import read_image
from lib.dataset.transforms import box_error
from lib.prediction.detectors import Detector
from lib.prediction.media import Frame, Source, Video
from lib.prediction.output import Outputs, Recorder
from lib.predictor import Person, Predictor
from lib.utils.errors import UserError
from lib.utils.prefetch import prefetch

log = logging.getLogger(__name__)

_PREFETCHED_IMAGES = 2  # they may be large
_PREFETCHED_FRAMES = 16


class Prediction:
    """A run over images and videos, counted, also if it is interrupted.

    `frames` counts images too, `skipped` the files that cannot be read.
    """

    def __init__(
        self, predictor: Predictor, detector: Detector, plan: dict[Source, Outputs]
    ) -> None:
        self.predictor = predictor
        self.detector = detector
        self.plan = plan
        self.frames = self.people = self.skipped = 0
        self.seconds = 0.0
        self._reported: set[str] = set()  # problems with boxes

    def run(self) -> None:
        """Process the images, then the videos; UserError if nothing can be read."""
        start = time.perf_counter()
        images = [source for source in self.plan if source.kind == "image"]
        try:
            if images:
                self._process(self._read(images), len(images), _PREFETCHED_IMAGES)
            for source in self.plan:
                if source.kind != "image":
                    self._run_video(source)
        finally:
            self.seconds = time.perf_counter() - start
        if not self.frames:
            raise UserError("no input could be read; the lines above say why")

    def summary(self) -> str:
        """Return how many people in how many frames, how fast, and what was skipped."""
        skipped = f", {self.skipped} files skipped" if self.skipped else ""
        speed = f"{self.frames / self.seconds:.1f} frames/s{skipped}"
        return f"{self.people} people in {self.frames} frames, {speed}"

    def _read(self, images: Iterable[Source]) -> Iterator[Frame]:
        for source in images:
            try:
                yield Frame(read_image(source.path), source)
            except UserError as error:
                self._skip(error)

    def _run_video(self, source: Source) -> None:
        try:
            video = Video(source)
        except UserError as error:
            self._skip(error)
            return
        with closing(video):
            self._process(video, video.length, _PREFETCHED_FRAMES, video.frame_rate)

    def _skip(self, error: UserError) -> None:
        log.warning("%s; skipped", error)
        self.skipped += 1

    def _process(
        self, frames: Iterable[Frame], count: int, depth: int, frame_rate: float = 0.0
    ) -> None:
        """Predict and record `count` frames (0: unknown)."""
        with (
            closing(Recorder(self.plan, self.predictor.skeleton, frame_rate)) as recorder,
            logging_redirect_tqdm(),
            tqdm(total=count or None, unit="frame", disable=None, leave=False) as bar,
            closing(prefetch(frames, depth)) as read,
            closing(prefetch(self._predict(read), depth)) as results,
        ):
            for frame, people in results:
                recorder.add(frame, people)
                if not people and frame.number is None:
                    log.info("%s: no person", frame.source.path)
                self.frames += 1
                self.people += len(people)
                bar.update()

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
