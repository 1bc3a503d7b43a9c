"""Images of folders and zip files: read, decoded, and named in errors."""

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.dataset.images import ImageFolder, ImageZip, decode_image


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
    "name", ["../annot/train.json", "a/../../x", "/etc/passwd", "..\\x", "C:\\x", ""]
)
def test_names_cannot_leave_the_source(
    name: str, root: Path, one_line: Callable[..., None]
) -> None:
    one_line(lambda: ImageFolder(root / "images").read(name), "images", "inside")
    one_line(lambda: ImageZip(root / "images.zip").read(name), "images.zip", "inside")


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
