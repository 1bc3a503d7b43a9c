"""Images are read from folders, zip files and single files, decoded, and named in errors."""

import io
import os
import pickle
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from lib.dataset.images import ImageFolder, ImageZip, decode_image, read_image
from lib.utils.errors import UserError


def test_zip_and_folder_give_the_same_bytes(root: Path) -> None:
    folder, archive = ImageFolder(root / "images"), ImageZip(root / "images.zip")
    for name in ("0.jpg", "2.png"):
        assert folder.read(name) == archive.read(name)
    copy = pickle.loads(pickle.dumps(archive))  # noqa: S301 -- what a spawned worker gets
    assert copy.read("1.jpg") == archive.read("1.jpg")


def test_a_zip_is_opened_again_in_a_forked_process(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    archive = ImageZip(root / "images.zip")
    archive.read("1.jpg")
    parents = archive._handle
    archive.read("1.jpg")
    assert archive._handle is parents
    monkeypatch.setattr("os.getpid", lambda: -7)
    archive.read("1.jpg")
    assert archive._handle is not parents


@pytest.mark.parametrize(
    "name",
    [
        "../annot/train.json", "a/../../x", "/etc/passwd", "..\\x", "C:\\x", "C:/x", "", ".",
        "a/..", "../images.jpg", "../imagesx/0.jpg", "https://host/0.jpg", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_names_cannot_leave_the_source(
    name: str, root: Path, one_line: Callable[..., None]
) -> None:
    one_line(lambda: ImageFolder(root / "images").read(name), "images", "inside")
    one_line(lambda: ImageZip(root / "images.zip").read(name), "images.zip", "inside")


@pytest.mark.parametrize(
    "name",
    [
        "2024-05-01 10:30:12.jpg",
        "a:b.jpg",
        "1:0.jpg",
        "day:1/x.jpg",
        "a..b.jpg",
        "..a.jpg",
        "a/x.jpg",
    ],
)
def test_names_inside_are_read(name: str, root: Path) -> None:
    """Also with a colon, and by another way that ends inside."""
    path = root / "images" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"content")
    with zipfile.ZipFile(root / "images.zip", "a") as archive:
        archive.write(path, name)
    for source in (ImageFolder(root / "images"), ImageZip(root / "images.zip")):
        assert source.read(name) == source.read(f"none/../{name}") == b"content"
    assert ImageFolder(root / "images").read(f"../images/{name}") == b"content"
    assert ImageFolder(root / "images").read(str(path)) == b"content"


def test_a_link_does_not_lead_out(root: Path, one_line: Callable[..., None]) -> None:
    (root.parent / "elsewhere").mkdir()
    (root.parent / "secret.jpg").write_bytes(b"secret")
    (root / "images" / "link").symlink_to(root.parent / "elsewhere")
    one_line(lambda: ImageFolder(root / "images").read("link/../secret.jpg"), "secret.jpg")


def test_the_other_format_is_named(root: Path, one_line: Callable[..., None]) -> None:
    one_line(lambda: ImageFolder(root / "none"), "DATASET.ROOT", "DATASET.DATA_FORMAT zip")
    one_line(lambda: ImageZip(root / "none.zip"), "DATASET.ROOT", "DATASET.DATA_FORMAT jpg")


def test_a_zip_may_have_the_folder_of_its_name(root: Path) -> None:
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        archive.write(root / "images" / "0.jpg", "images/0.jpg")
    expected = ImageFolder(root / "images").read("0.jpg")
    assert ImageZip(root / "images.zip").read("0.jpg") == expected


@pytest.mark.parametrize("folder", ["other/", "a/b/"])
def test_a_zip_of_a_folder_is_told_apart(
    folder: str, root: Path, one_line: Callable[..., None]
) -> None:
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        archive.write(root / "images" / "0.jpg", f"{folder}0.jpg")
    source = ImageZip(root / "images.zip")
    one_line(lambda: source.read("0.jpg"), "no entry '0.jpg'", f"'{folder}0.jpg'", "folder")


def test_errors_name_what_cannot_be_read(root: Path, one_line: Callable[..., None]) -> None:
    one_line(lambda: ImageFolder(root / "images").read("no.jpg"), "no.jpg")
    one_line(lambda: ImageZip(root / "images.zip").read("no.jpg"), "images.zip", "no.jpg")
    one_line(lambda: ImageFolder(root / "nothing"), "nothing")
    one_line(lambda: ImageZip(root / "nothing.zip"), "nothing.zip")
    (root / "images.zip").write_bytes(b"no zip")
    one_line(lambda: ImageZip(root / "images.zip").read("0.jpg"), "images.zip")
    for data in (b"", b"text", b"\xff\xd8\xff"):
        one_line(lambda data=data: decode_image(data, "odd.jpg"), "odd.jpg")


def test_images_are_decoded_to_bgr_as_stored() -> None:
    red = np.zeros((10, 20, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    plain = cv2.imencode(".jpg", red)[1].tobytes()
    exif = bytes.fromhex(  # orientation 6: rotated by 90 degrees
        "ffe10022457869660000" "4d4d002a00000008" "0001" "011200030000000100060000" "00000000"
    )  # fmt: skip
    for data in (plain, plain[:2] + exif + plain[2:]):
        image = decode_image(data, "red.jpg")
        assert image.shape == (10, 20, 3)
        assert (image.mean((0, 1)) > (-1, -1, 250)).all()
        assert (image.mean((0, 1)) < (5, 5, 256)).all()


WIDTH, HEIGHT = 80, 60


def smooth_image() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(source: Image.Image, file_format: str, **options: object) -> bytes:
    memory = io.BytesIO()
    source.save(memory, file_format, **options)
    return memory.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def sixteen_bits() -> bytes:
    return cv2.imencode(".png", smooth_image()[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


RGB = Image.fromarray(smooth_image())
GRAY = np.asarray(RGB.convert("L"))[..., None].repeat(3, 2)
KINDS: dict[str, tuple[Callable[[], bytes], np.ndarray, float]] = {
    "png": (lambda: encoded(RGB, "PNG"), smooth_image(), 0),
    "jpeg": (lambda: encoded(RGB, "JPEG", quality=98), smooth_image(), 4),
    "gray": (lambda: encoded(RGB.convert("L"), "PNG"), GRAY, 0),
    "gray jpeg": (lambda: encoded(RGB.convert("L"), "JPEG", quality=98), GRAY, 4),
    "16 bits": (sixteen_bits, smooth_image(), 0),
    "rgba": (lambda: encoded(RGB.convert("RGBA"), "PNG"), smooth_image(), 0),
    "cmyk jpeg": (lambda: encoded(RGB.convert("CMYK"), "JPEG", quality=98), smooth_image(), 4),
    "cmyk tiff": (lambda: encoded(RGB.convert("CMYK"), "TIFF"), smooth_image(), 4),
    "rotated": (lambda: encoded(RGB, "PNG", exif=oriented(6)), np.rot90(smooth_image(), -1), 0),
    "rotated jpeg": (
        lambda: encoded(RGB, "JPEG", quality=98, exif=oriented(3)), np.rot90(smooth_image(), 2), 4,
    ),
    "mirrored": (lambda: encoded(RGB, "PNG", exif=oriented(2)), smooth_image()[:, ::-1], 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_every_kind_are_read_as_image_viewers_show_them(kind: str, tmp_path: Path) -> None:
    make, expected, tolerance = KINDS[kind]
    (tmp_path / "a").write_bytes(make())
    decoded = read_image(tmp_path / "a")
    assert (decoded.dtype, decoded.shape) == (np.uint8, expected.shape)
    assert np.abs(decoded.astype(int) - expected).mean() <= tolerance


@pytest.mark.parametrize(
    "content", [b"", b"no image", encoded(RGB, "PNG")[:3000], encoded(RGB, "JPEG")[:400]]
)
def test_a_damaged_image_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.jpg"):
        read_image(tmp_path / "broken.jpg")


def test_an_unreadable_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jpg"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(UserError, match="not a file"):
        read_image(tmp_path)


def zeros(data: bytes, length: int) -> bytes:
    return data[: len(data) // 2] + bytes(length) + data[len(data) // 2 + length :]


def photo() -> Image.Image:
    """A picture whose JPEG file is large enough for a hole."""
    noise = np.random.default_rng(0).integers(0, 60, (480, 640, 3), np.uint8)
    return Image.fromarray(cv2.add(cv2.resize(smooth_image(), (640, 480)), noise))


HOLES: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda data: zeros(data, len(data) // 4),
    "a sector of zeros": lambda data: zeros(data, 512),
    "a piece is missing": lambda data: data[: len(data) // 3] + data[len(data) // 2 :],
    "ones": lambda data: data[: len(data) // 3] + 2000 * b"\xff" + data[len(data) // 3 + 2000 :],
    "noise": lambda data: (
        data[: len(data) // 3]
        + np.random.default_rng(1).bytes(2000)
        + data[len(data) // 3 + 2000 :]
    ),
    "zeros to the end": lambda data: zeros(data[:-2], len(data) // 2 - 2) + data[-2:],
    "cut off": lambda data: data[: len(data) // 2],
}
JPEGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "optimized": {"optimize": True},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 1},
}


@pytest.mark.parametrize("reduce", [1, 4])
@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("hole", HOLES)
def test_a_jpeg_with_a_hole_is_an_error(
    hole: str, kind: str, reduce: int, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = encoded(photo(), "JPEG", quality=80, **JPEGS[kind])
    damaged = HOLES[hole](whole)
    for _ in range(2):
        assert decode_image(whole, "a.jpg", reduce).any()
        with pytest.raises(
            UserError, match=r"^a\.jpg: the (image is damaged|file is not an image)"
        ):
            decode_image(damaged, "a.jpg", reduce)
    assert decode_image(whole, "a.jpg", reduce).any()
    assert not capfd.readouterr().err  # libjpeg's complaint is in the error


def test_a_few_bytes_too_many_are_no_damage(capfd: pytest.CaptureFixture[str]) -> None:
    """As some cameras write them; the image is whole."""
    data = encoded(RGB, "JPEG")
    padded = data[:-2] + b"\x00\x00" + data[-2:]
    np.testing.assert_array_equal(decode_image(padded, "a.jpg"), decode_image(data, "a.jpg"))
    assert not capfd.readouterr().err


def test_standard_error_is_kept(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What others write while an image is decoded is passed on; threads do not mix."""
    original = cv2.imdecode

    def talking(*arguments: Any) -> Any:
        os.write(2, b"another thread\n")
        return original(*arguments)

    monkeypatch.setattr(cv2, "imdecode", talking)
    data = encoded(RGB, "JPEG")
    threads = [
        threading.Thread(target=lambda: [decode_image(data, "a.jpg") for _ in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"the end")
    assert capfd.readouterr().err == 200 * "another thread\n" + "the end"


def test_an_error_of_opencv_keeps_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: Any) -> Any:
        raise cv2.error("broken")

    monkeypatch.setattr(cv2, "imdecode", broken)
    with pytest.raises(UserError, match=r"a\.jpg"):
        decode_image(b"", "a.jpg")
    os.write(2, b"the end")
    assert capfd.readouterr().err == "the end"


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header says that it is of another size, so that its data break off."""
    data = bytearray(encoded(RGB, "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_claiming(width: int, height: int) -> bytes:
    data = encoded(RGB, "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def png_claiming(width: int, height: int) -> bytes:
    data = encoded(RGB, "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("make", [jpeg_claiming, png_claiming, gif_claiming])
def test_an_image_of_too_many_pixels_is_not_decoded(
    make: Callable[[int, int], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "huge.img").write_bytes(make(30_000, 30_000))
    monkeypatch.setattr(cv2, "imdecode", None)  # it would crash
    with pytest.raises(UserError, match=r"huge\.img.*200,000,000 pixels.*DATASET\.MAX_PIXELS"):
        read_image(tmp_path / "huge.img")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000"])
def test_the_limit_of_pixels_holds_for_every_format(kind: str) -> None:
    data = encoded(RGB, kind)
    assert decode_image(data, "a", max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(UserError, match="more than 4,799 pixels"):
        decode_image(data, "a", max_pixels=WIDTH * HEIGHT - 1)
