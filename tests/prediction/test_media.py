"""Videos, intact and damaged; files, folders and patterns as inputs."""

from pathlib import Path

import numpy as np
import pytest

from lib.prediction.media import Source, Video, find_sources, silence_codecs, video_writer
from lib.utils.errors import UserError


@pytest.fixture(autouse=True)
def _quiet() -> None:
    silence_codecs()


def write_video(path: Path, images: np.ndarray) -> Path:
    with video_writer(path, 12.5, (64, 48)) as write:
        for frame in images:
            write(frame)
    return path


def gray_frames(count: int = 20) -> np.ndarray:
    return (
        np.zeros((count, 48, 64, 3), np.uint8)
        + np.arange(count, dtype=np.uint8)[:, None, None, None]
    )


def video(path: Path) -> Video:
    return Video(Source("video", str(path), path.name))


def test_a_video_is_read_as_it_was_written(tmp_path: Path) -> None:
    images = np.stack([np.full((48, 64, 3), (200, 120, 10 * n), np.uint8) for n in range(20)])
    opened = video(write_video(tmp_path / "new/clip.mp4", images))
    assert opened.frame_rate == pytest.approx(12.5)
    assert opened.length == 20
    frames = list(opened)
    opened.close()
    assert [frame.number for frame in frames] == list(range(20))
    decoded = np.stack([frame.image for frame in frames]).astype(int)
    assert np.abs(decoded - images).mean(axis=(1, 2, 3)).max() < 6


def test_a_damaged_video_is_read_as_far_as_possible(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "clip.mp4", noise)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + len(content) // 3] = bytes(len(content) // 3)
    path.write_bytes(content)
    frames = list(video(path))
    assert 5 < len(frames) < 30
    assert caplog.messages == [f"{path}: decoded only {len(frames)} of 30 frames"]


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_an_undecodable_video_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clip.mp4"
    if content is None:  # without its index, which is at the end
        content = write_video(path, gray_frames()).read_bytes()[:1000]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"clip\.mp4"):
        video(path)


def test_a_video_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "clip.none", tmp_path / "file/clip.mp4"):
        with pytest.raises(UserError, match="cannot write"):
            write_video(path, gray_frames())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "c.mp4", "notes.txt", ".hidden.jpg", "sub/d.jpg", "x[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(*inputs: object) -> list[str]:
    return [source.name for source in find_sources(map(str, inputs))]


def test_a_folder_means_its_images_and_videos(folder: Path) -> None:
    assert names(folder) == ["a.png", "b.JPG", "c.mp4", "x[1].jpg"]
    kinds = [source.kind for source in find_sources([str(folder)])]
    assert kinds == ["image", "image", "video", "image"]


def test_a_pattern_means_the_files_that_match(folder: Path) -> None:
    assert names(f"{folder}/*.JPG") == ["b.JPG"]
    assert names(f"{folder}/**/*.jpg") == ["sub/d.jpg", "x[1].jpg"]
    assert names(f"{folder}/s*/d.jpg") == ["sub/d.jpg"]
    assert names(f"{folder}/x[1].jpg") == ["x[1].jpg"]  # a file of that name exists


@pytest.mark.parametrize("name", ["none.jpg", "none*.jpg", "empty"])
def test_an_input_without_images_is_an_error(folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="--input"):
        find_sources([str(folder), str(folder / name)])


def test_repeated_files_are_read_once(folder: Path) -> None:
    path = folder / "a.png"
    assert names(path, folder / "../" / folder.name / "a.png", path, folder / "b.JPG", path) == [
        "a.png", "b.JPG",
    ]  # fmt: skip
