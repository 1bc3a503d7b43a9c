"""Images of any format are read as viewers show them."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lib.dataset.images import read_image
from lib.utils.errors import UserError

WIDTH, HEIGHT = 80, 60


def image() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(pil_image: Image.Image, name: str, **options: object) -> bytes:
    memory = io.BytesIO()
    pil_image.save(memory, name, **options)
    return memory.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def sixteen_bits() -> bytes:
    return cv2.imencode(".png", image()[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


RGB = Image.fromarray(image())
GRAY = np.asarray(RGB.convert("L"))[..., None].repeat(3, 2)
FORMATS: dict[str, tuple[Callable[[], bytes], np.ndarray, float]] = {
    "png": (lambda: encoded(RGB, "PNG"), image(), 0),
    "jpeg": (lambda: encoded(RGB, "JPEG", quality=98), image(), 4),
    "gray": (lambda: encoded(RGB.convert("L"), "PNG"), GRAY, 0),
    "gray jpeg": (lambda: encoded(RGB.convert("L"), "JPEG", quality=98), GRAY, 4),
    "16 bits": (sixteen_bits, image(), 0),
    "rgba": (lambda: encoded(RGB.convert("RGBA"), "PNG"), image(), 0),
    "cmyk jpeg": (lambda: encoded(RGB.convert("CMYK"), "JPEG", quality=98), image(), 4),
    "cmyk tiff": (lambda: encoded(RGB.convert("CMYK"), "TIFF"), image(), 4),
    "turned": (lambda: encoded(RGB, "PNG", exif=turned(6)), np.rot90(image(), -1), 0),
    "turned jpeg": (
        lambda: encoded(RGB, "JPEG", quality=98, exif=turned(3)), np.rot90(image(), 2), 4,
    ),
    "mirrored": (lambda: encoded(RGB, "PNG", exif=turned(2)), image()[:, ::-1], 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_images_of_any_format_are_read_as_viewers_show_them(name: str, tmp_path: Path) -> None:
    make, expected, tolerance = FORMATS[name]
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
    with pytest.raises(UserError, match="directory"):
        read_image(tmp_path)
