"""Videos: frames at their real times, damaged files, other sizes, and what is written."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lib.prediction import video as module
from lib.prediction.media import Frame, Source
from lib.prediction.video import Video, video_writer
from lib.utils.errors import UserError


def write_video(path: Path, images: Iterable[np.ndarray], times: Sequence[float] = ()) -> Path:
    with video_writer(path, Fraction(25, 2)) as write:
        for index, image in enumerate(images):
            write(image, times[index] if times else index / 12.5)
    return path


def encode(
    path: Path, codec: str = "mpeg4", count: int = 30, size: tuple[int, int] = (64, 48),
    encoder: dict[str, str] | None = None, **options: str,
) -> Path:  # fmt: skip
    """Write noise with an encoder of FFmpeg, at 25 frames a second."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options=encoder)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for _ in range(count):
            image = random.integers(0, 255, (*size[::-1], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return path


def open_video(path: Path, **limits: int) -> Video:
    return Video(Source("video", str(path), path.name), **limits)


def times_of(path: Path) -> list[float]:
    return [frame.time for frame in open_video(path)]


def noise(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)


def test_a_video_is_read_as_it_was_written(tmp_path: Path) -> None:
    images = np.stack([np.full((48, 64, 3), (200, 120, 10 * n), np.uint8) for n in range(20)])
    opened = open_video(write_video(tmp_path / "new/clip.mp4", images))
    assert float(opened.frame_rate) == pytest.approx(12.5, abs=0.01)
    assert opened.length == 20
    frames = list(opened)
    opened.close()
    assert [frame.number for frame in frames] == list(range(20))
    decoded = np.stack([frame.image for frame in frames]).astype(int)
    assert np.abs(decoded - images).mean(axis=(1, 2, 3)).max() < 6


@pytest.mark.parametrize("encoder", module._ENCODERS)
@pytest.mark.parametrize(
    "times",
    [
        [0, 2, 4, 6], [0, 0.02, 0.5, 3], [n * 1000 / 66667 for n in range(9)],
        [n * 1001 / 24000 for n in range(9)], [0, 1e-4, 2e-4, 1],
    ],
)  # fmt: skip
def test_frames_keep_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, times: list[float]
) -> None:
    monkeypatch.setattr(module, "_ENCODERS", {encoder: module._ENCODERS[encoder]})
    path = write_video(tmp_path / "clip.mp4", noise(len(times)), times)
    np.testing.assert_allclose(times_of(path), times, atol=2e-5)
    assert times[-1] < open_video(path)._duration < times[-1] + 2.1  # players show the last frame


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_video_that_does_not_start_at_0_is_whole(tmp_path: Path, suffix: str) -> None:
    with av.open(str(tmp_path / f"late.{suffix}"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        for number, image in enumerate(noise(10)):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = 125 + number, Fraction(1, 25)  # from 5 seconds on
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert times_of(tmp_path / f"late.{suffix}") == pytest.approx([n / 25 for n in range(10)])


def test_videos_are_written_as_browsers_play_them(tmp_path: Path) -> None:
    if "libx264" not in av.codecs_available:
        pytest.skip("no encoder of H.264")
    with av.open(str(write_video(tmp_path / "clip.mp4", noise(3)))) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [("longaudio.mkv", 60, 1.967), ("trimmed.mp4", 45, 1.467), ("slow.mp4", 12, 22)],
)
def test_real_videos_are_whole_and_keep_their_duration(
    shared: Path, tmp_path: Path, name: str, count: int, last: float
) -> None:
    path = shared / "data/videos" / name
    if not path.exists():
        pytest.skip("no videos")
    opened = open_video(path)
    frames = list(opened)  # no UserError: it does not break off
    assert len(frames) == count
    assert frames[-1].time == pytest.approx(last, abs=1e-3)
    with video_writer(tmp_path / "out.mp4", opened.frame_rate) as write:
        for frame in frames:
            write(frame.image, frame.time)
    written = open_video(tmp_path / "out.mp4")
    assert [frame.time for frame in written] == pytest.approx([f.time for f in frames], abs=1e-3)
    assert written.length == count
    assert written._duration == pytest.approx(last + 1 / opened.frame_rate, abs=1e-2)


@pytest.mark.parametrize("shape", [(1, 1), (47, 64), (48, 63), (2, 301)])
def test_odd_sides_are_kept(tmp_path: Path, shape: tuple[int, int]) -> None:
    (frame,) = open_video(write_video(tmp_path / "clip.mp4", noise(1, *shape)))
    assert frame.image.shape[:2] == tuple(side + side % 2 for side in shape)


def test_frames_of_another_size_are_scaled(tmp_path: Path) -> None:
    images = [np.full((48, 64, 3), 90, np.uint8), np.full((99, 200, 3), 90, np.uint8)]
    frames = list(open_video(write_video(tmp_path / "clip.mp4", images)))
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 2
    assert all(abs(frame.image.mean() - 90) < 3 for frame in frames)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
def test_frames_are_in_order_and_evenly_spaced(tmp_path: Path, codec: str, suffix: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip("no such encoder")
    options = {} if codec == "mjpeg" else {"bf": "2"}
    times = times_of(encode(tmp_path / f"clip.{suffix}", codec, encoder=options))
    assert times == pytest.approx([n / 25 for n in range(30)], abs=2e-3)


def test_joined_videos_have_increasing_times(tmp_path: Path) -> None:
    path = encode(tmp_path / "part.ts", "mpeg2video")
    single = times_of(path)
    path.write_bytes(path.read_bytes() * 2)
    times = [frame.time for frame in _until_error(open_video(path))]
    assert len(times) == 2 * len(single)
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(2 * single[-1] + 0.04, abs=0.05)


def test_frames_are_upright(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = 255  # the upper left quarter
    path = write_video(tmp_path / "clip.mp4", [image])
    content, unit = path.read_bytes(), 2**16
    plain = struct.pack(">9i", unit, 0, 0, 0, unit, 0, 0, 0, 2**30)
    turned = struct.pack(">9i", 0, unit, 0, -unit, 0, 0, 48 * unit, 0, 2**30)
    start = content.index(plain, content.index(b"tkhd"))  # by 90 degrees, clockwise
    path.write_bytes(content[:start] + turned + content[start + len(plain) :])
    (frame,) = open_video(path)
    assert frame.image.shape == (64, 48, 3)
    assert frame.image[:32, 24:].mean() > 250
    assert frame.image[32:].mean() < 5


DAMAGED = [
    ("clip.mp4", "mpeg4", {"movflags": "faststart"}), ("clip.avi", "mpeg4", {}),
    ("clip.mkv", "mpeg4", {}), ("clip.mov", "mjpeg", {"movflags": "faststart"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "options"), DAMAGED)
def test_a_damaged_video_is_read_as_far_as_possible(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    content = encode(tmp_path / name, codec, **options).read_bytes()
    assert len(list(open_video(tmp_path / name))) == 30
    half = len(content) // 2
    hole = bytearray(content)
    hole[half : half + len(content) // 5] = bytes(len(content) // 5)
    for damaged in (content[:half], hole):
        (tmp_path / name).write_bytes(damaged)
        assert 5 < len(list(_until_error(open_video(tmp_path / name)))) < 30
        with pytest.raises(UserError, match=rf"{name}: .*(breaks off|damaged)"):
            list(open_video(tmp_path / name))


def _until_error(frames: Iterable[Frame]) -> Iterator[Frame]:
    try:
        yield from frames
    except UserError:
        return


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_an_undecodable_video_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clip.mp4"
    if content is None:  # without its index, which is at the end
        content = encode(path).read_bytes()[:1000]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"clip\.mp4"):
        open_video(path)


def test_a_file_of_sound_has_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="no pictures"):
        open_video(tmp_path / "sound.mp4")


def test_frames_above_the_limit_are_not_decoded(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", count=1)
    assert len(list(open_video(path, max_pixels=100_000))) == 1
    with pytest.raises(UserError, match=r"more than 3,000 pixels.*DATASET\.MAX_PIXELS"):
        open_video(path, max_pixels=3000)


@pytest.mark.parametrize("name", ["a:b.mp4", "http:b.mp4", "%03d.mp4", "line\nbreak.mp4", "é.mp4"])
def test_any_name_can_be_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(times_of(write_video(Path(name), noise(3)))) == 3


def test_a_video_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, size in (("clip.none", (48, 64)), ("file/clip.mp4", (48, 64)), ("c.mp4", (2, 30000))):
        with pytest.raises(UserError, match="cannot write"):
            write_video(tmp_path / path, noise(2, *size))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
