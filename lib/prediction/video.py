"""Videos, read and written with PyAV at the real times of their frames."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from lib.dataset.images import MAX_PIXELS, TOO_LARGE
from lib.prediction.media import Frame, Source
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import atomic_write
from lib.utils.text import counted

# H.264 plays in browsers; every FFmpeg has MPEG-4. Without B-frames (bf), as MP4 takes its length
# from decoding times, which end before the last pictures of a variable frame rate.
_ENCODERS = {"libx264": {"preset": "veryfast", "crf": "20", "bf": "0"}, "mpeg4": {"b": "8M"}}
_TICK = Fraction(1, 60_000)  # seconds, of written times; MPEG-4 has at most 65535 in a second
_FRAME_RATE = Fraction(25)  # frames a second, of files without one
_JUMP = 1  # seconds back that mean that the times start again, as in joined files


class Video:
    """The frames of a video; iterate once, and close.

    `length` estimates the number of frames, 0 if unknown; `frame_bytes` is the size of an image.
    UserError if it cannot be opened or has frames of more than `max_pixels`.
    """

    def __init__(self, source: Source, max_pixels: int = MAX_PIXELS) -> None:
        self.source = source
        with as_user_error(f"{source.path}: cannot decode this video"):
            if not os.path.isfile(source.path):  # opening a pipe would wait forever
                raise ValueError("it is not a file")
            # An absolute path, as FFmpeg reads `a:b.mp4` as an address with protocol `a`.
            self._container = av.open(os.path.abspath(source.path), metadata_errors="replace")
        stream = self._container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.width * stream.height > max_pixels:
            self.close()
            problem = "has no pictures" if stream is None else TOO_LARGE.format(max_pixels)
            raise UserError(f"{source.path}: the video {problem}")
        # Later frames may be larger. Not as options of av.open: PyAV 17 may crash on those.
        stream.codec_context.options = {"max_pixels": str(max_pixels)}
        stream.thread_type = "AUTO"
        self._stream = stream
        self.frame_rate: Fraction = stream.average_rate or stream.guessed_rate or _FRAME_RATE
        self.frame_bytes: int = stream.width * stream.height * 3
        self._duration = (self._container.duration or 0) / av.time_base
        self._time_base = stream.time_base or Fraction(1)
        duration = float((stream.duration or 0) * self._time_base) or self._duration
        self.length = round(duration * self.frame_rate) or stream.frames

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that can be decoded, then UserError if some cannot."""
        path, step = self.source.path, float(1 / self.frame_rate)
        count, damaged, time, end, offset = 0, 0, -step, 0.0, None
        # AVI has no presentation times, and those of B-frames would be guessed wrong.
        stamp = "dts" if self._container.format.name == "avi" else "pts"
        with as_user_error(f"{path}: the video breaks off"):
            for packet in self._container.demux():  # all streams: sound may outlast the pictures
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream.index != self._stream.index:
                    continue
                try:
                    frames = self._stream.decode(packet)
                except av.FFmpegError:
                    frames, damaged = [], damaged + 1
                damaged += packet.is_corrupt
                for frame in frames:
                    damaged += frame.is_corrupt
                    last, time = time, time + step
                    if (ticks := getattr(frame, stamp)) is not None:
                        seconds = float(ticks * self._time_base)
                        if offset is None or seconds + offset < last - _JUMP:
                            offset = time - seconds
                        time = max(seconds + offset, last + float(_TICK))
                    image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    yield Frame(np.ascontiguousarray(image), self.source, count, time)
                    count += 1
        if "matroska" not in self._container.format.name:  # its duration counts from 0
            end -= (self._container.start_time or 0) / av.time_base
        if count == 0:
            raise UserError(f"{path}: cannot decode this video")
        # The header's duration may be a little too long, and the last frame's own one unknown.
        if end + 2 * step < 0.98 * self._duration - 0.5:
            read = f"{end:.1f} of {self._duration:.1f} seconds"
            raise UserError(f"{path}: the video breaks off after {read}")
        if damaged:
            raise UserError(f"{path}: the video has {counted(damaged, 'damaged frame')}")

    def close(self) -> None:
        """Release the file."""
        self._container.close()


@contextmanager
def video_writer(path: Path, frame_rate: Fraction) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Yield a function that adds an image at its time; at the end the video becomes `path`.

    Times are in seconds and increase. All frames get the size of the first one, whose odd sides
    grow by a pixel. UserError if no encoder can write such a file.
    """
    problem = f"cannot write {path}"
    with (
        atomic_write(path) as temporary,
        as_user_error(problem),
        av.open(str(temporary.absolute()), "w") as container,
    ):
        name = next(name for name in _ENCODERS if name in av.codecs_available)
        rate = frame_rate.limit_denominator(60_000)
        stream = container.add_stream(name, rate=rate, options=dict(_ENCODERS[name]))
        stream.codec_context.time_base = _TICK
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.width = 0

        def add(image: np.ndarray, time: float) -> None:
            height, width = image.shape[:2]
            with as_user_error(f"{problem}: {name} cannot encode {width}×{height} pixels"):
                if not stream.width:
                    stream.width, stream.height = width + width % 2, height + height % 2
                even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                frame = av.VideoFrame.from_ndarray(even, "rgb24")
                frame.pts, frame.time_base = round(time / _TICK), _TICK
                container.mux(stream.encode(frame))

        yield add
        container.mux(stream.encode(None))
