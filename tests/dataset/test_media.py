"""Pictures of every kind, upright; videos whole and broken; what users name as input."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lib.dataset import media
from lib.dataset.media import Medium, Video, find_media, gather_media, read_picture, writing_video
from lib.utils.errors import UserError

WIDTH, HEIGHT = 80, 60


@pytest.fixture(autouse=True)
def _quiet() -> None:
    media.hush_codecs()


def picture() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def sixteen_bits() -> bytes:
    return cv2.imencode(".png", picture()[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


RGB = Image.fromarray(picture())
GRAY = np.asarray(RGB.convert("L"))[..., None].repeat(3, 2)
KINDS: dict[str, tuple[Callable[[], bytes], np.ndarray, float]] = {
    "png": (lambda: encoded(RGB, "PNG"), picture(), 0),
    "jpeg": (lambda: encoded(RGB, "JPEG", quality=98), picture(), 4),
    "gray": (lambda: encoded(RGB.convert("L"), "PNG"), GRAY, 0),
    "gray jpeg": (lambda: encoded(RGB.convert("L"), "JPEG", quality=98), GRAY, 4),
    "16 bits": (sixteen_bits, picture(), 0),
    "rgba": (lambda: encoded(RGB.convert("RGBA"), "PNG"), picture(), 0),
    "cmyk jpeg": (lambda: encoded(RGB.convert("CMYK"), "JPEG", quality=98), picture(), 4),
    "cmyk tiff": (lambda: encoded(RGB.convert("CMYK"), "TIFF"), picture(), 4),
    "turned": (lambda: encoded(RGB, "PNG", exif=turned(6)), np.rot90(picture(), -1), 0),
    "turned jpeg": (
        lambda: encoded(RGB, "JPEG", quality=98, exif=turned(3)), np.rot90(picture(), 2), 4,
    ),
    "mirrored": (lambda: encoded(RGB, "PNG", exif=turned(2)), picture()[:, ::-1], 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_every_kind_come_as_viewers_show_them(kind: str, tmp_path: Path) -> None:
    make, wanted, tolerance = KINDS[kind]
    (tmp_path / "a").write_bytes(make())
    image = read_picture(tmp_path / "a")
    assert (image.dtype, image.shape) == (np.uint8, wanted.shape)
    assert np.abs(image.astype(int) - wanted).mean() <= tolerance


@pytest.mark.parametrize(
    "content", [b"", b"no picture", encoded(RGB, "PNG")[:3000], encoded(RGB, "JPEG")[:400]]
)
def test_a_broken_picture_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.jpg"):
        read_picture(tmp_path / "broken.jpg")


def test_a_picture_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jpg"):
        read_picture(tmp_path / "none.jpg")
    with pytest.raises(UserError, match="directory"):
        read_picture(tmp_path)


# Videos


def frames(count: int = 20) -> list[np.ndarray]:
    """Gray frames, each as bright as its number says."""
    return [np.full((48, 64, 3), 10 * number + 20, np.uint8) for number in range(count)]


def write_video(path: Path, images: list[np.ndarray]) -> Path:
    with writing_video(path, 12.5) as write:
        for image in images:
            write(image)
    return path


def video(path: Path) -> Video:
    return Video(Medium("video", str(path), path.name))


def test_a_video_is_read_as_it_was_written(tmp_path: Path) -> None:
    images = [np.full((48, 64, 3), (200, 120, 10 * number), np.uint8) for number in range(20)]
    opened = video(write_video(tmp_path / "clip.mp4", images))
    assert opened.frame_rate == pytest.approx(12.5)
    assert opened.length == 20
    found = list(opened)
    opened.close()
    assert [frame.number for frame in found] == list(range(20))
    for frame, image in zip(found, images, strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < 6


def test_a_video_that_breaks_off_gives_what_there_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "clip.mp4", list(noise))
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + len(content) // 3] = bytes(len(content) // 3)
    path.write_bytes(content)
    found = list(video(path))
    assert 5 < len(found) < 30
    (line,) = caplog.messages
    assert f"{path}: breaks off after {len(found)} of 30 frames" in line


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_what_is_no_video_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clip.mp4"
    if content is None:  # its index, at the end, is cut off
        content = write_video(path, frames()).read_bytes()[:1000]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"clip\.mp4"):
        video(path)


def test_a_camera_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match="no camera 93"):
        Video(Medium("camera", "93", "camera93"))


def test_a_video_without_frames_is_not_written(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [])
    assert not list(tmp_path.iterdir())


def test_a_video_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "clip.none", tmp_path / "none/clip.mp4"):
        with pytest.raises(UserError, match="cannot write"):
            write_video(path, frames())
    assert not list(tmp_path.iterdir())


# What users name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "c.mp4", "notes.txt", ".hidden.jpg", "sub/d.jpg", "x[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(found: list[Medium]) -> list[str]:
    return [medium.name for medium in found]


def test_a_folder_is_its_pictures_and_videos(folder: Path) -> None:
    found = find_media(str(folder))
    assert names(found) == ["a.png", "b.JPG", "c.mp4", "x[1].jpg"]
    assert [medium.kind for medium in found] == ["picture", "picture", "video", "picture"]


def test_a_pattern_is_the_files_that_fit_it(folder: Path) -> None:
    assert names(find_media(f"{folder}/*.JPG")) == ["b.JPG"]
    assert names(find_media(f"{folder}/**/*.jpg")) == ["sub/d.jpg", "x[1].jpg"]
    assert names(find_media(f"{folder}/s*/d.jpg")) == ["sub/d.jpg"]
    assert names(find_media(f"{folder}/x[1].jpg")) == ["x[1].jpg"]  # there is such a file


def test_a_number_is_a_camera_unless_it_is_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert find_media("0") == [Medium("camera", "0", "camera0")]
    (folder / "0").write_bytes(b"")
    assert find_media("0")[0].kind == "picture"


def test_what_is_not_there_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "empty").mkdir()
    for text in ("none.jpg", "none*.jpg", "empty", "a\0b", ""):
        with pytest.raises(UserError, match="--input"):
            find_media(str(folder / text) if text else text)

    def refuse(path: Path) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        find_media(str(folder))


def test_each_file_is_taken_once_and_the_rest_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = str(folder / "a.png")
    same = str(folder / "../" / folder.name / "a.png")
    assert names(gather_media([one, str(folder / "none.jpg"), same, one])) == ["a.png"]
    assert [medium.source for medium in gather_media(["0", "1", "0"])] == ["0", "1"]
    (line,) = caplog.messages
    assert "none.jpg" in line
    with pytest.raises(UserError, match=r"x\.jpg.*y\.jpg"):
        gather_media(["x.jpg", "y.jpg"])
