"""Parts of the check: left and right by the length of limbs, the same picture in other forms."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.dataset.check.images import Scan, scan_image, scan_images, shared_pictures
from lib.dataset.check.people import swapped_pairs
from lib.dataset.images import ImageFolder
from lib.dataset.records import Annotation, Record
from lib.dataset.skeleton import COCO

# Someone who faces the camera, by COCO's joints.
FACING = np.array([
    (50, 20), (56, 14), (44, 14), (62, 17), (38, 17), (70, 40), (30, 40), (76, 60), (24, 60),
    (80, 80), (20, 80), (63, 85), (37, 85), (64, 120), (36, 120), (65, 155), (35, 155),
])  # fmt: skip


def crowd(count: int) -> list[Record]:
    """People in about the same pose, their faces large; half of them show their backs."""
    rng, records = np.random.default_rng(0), []
    for number in range(count):
        joints, visible = FACING + rng.normal(0, 1, (17, 2)), np.ones(17, np.float32)
        if number % 2:
            joints[:, 0], visible[:5] = 100 - joints[:, 0], 0
        box = np.array([50.0, 85.0]), np.array([0.5, 0.5])
        records.append(Record(f"{number}.jpg", *box, joints.astype(np.float32), visible))
    return records


def exchange(record: Record, joints: list[int]) -> Record:
    order = [COCO.flip_order[j] if j in joints else j for j in range(17)]
    return replace(record, joints=record.joints[order], visible=record.visible[order])


@pytest.mark.parametrize(
    ("joints", "found"),
    [
        ([7, 8], ["left_elbow and right_elbow", "left_wrist and right_wrist"]),
        ([9, 10], ["left_wrist and right_wrist"]),
        ([13, 14], []),  # of thin legs, limbs are about as long exchanged
        ([*range(17)], []),
    ],
)
def test_exchanged_pairs(joints: list[int], found: list[str]) -> None:
    records = crowd(20)
    assert swapped_pairs(Annotation(records, Path()), COCO) == {}
    records[4] = exchange(records[4], joints)
    suspects = swapped_pairs(Annotation(records, Path()), COCO)
    assert suspects.get(4, []) == found
    assert set(suspects) <= {4}


def test_joints_that_are_not_annotated_are_no_reason() -> None:
    records = crowd(20)
    swapped = exchange(records[4], [7, 8])
    hidden = swapped.visible.copy()
    hidden[[5, 10]] = 0  # a shoulder and a wrist: no limb has its mirror
    records[4] = replace(swapped, visible=hidden)
    assert swapped_pairs(Annotation(records, Path()), COCO) == {}


def pictures(folder: Path, names: str) -> dict[str, np.ndarray]:
    rng, images = np.random.default_rng(0), {}
    for name in names:
        coarse = rng.integers(0, 255, (6, 7, 3), dtype=np.uint8)
        images[name] = cv2.resize(coarse, (280, 240), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{name}.jpg"), images[name])
    return images


def scans_of(folder: Path, *names: str) -> dict[str, Scan]:
    return scan_images(ImageFolder(folder), names, 10**8, workers=0)


def test_the_same_picture_in_another_form(tmp_path: Path) -> None:
    images = pictures(tmp_path, "abcdefgh")
    copies = {
        "a.png": images["a"],
        "low.jpg": images["b"],
        "small.webp": cv2.resize(images["c"], (70, 60), interpolation=cv2.INTER_AREA),
        "large.jpg": cv2.resize(images["d"], (420, 360)),
        "gray.png": cv2.cvtColor(images["e"], cv2.COLOR_BGR2GRAY),
        "mirrored.jpg": images["f"][:, ::-1],
        "part.jpg": images["g"][:120],
    }
    for name, image in copies.items():
        quality = [cv2.IMWRITE_JPEG_QUALITY, 15] if name == "low.jpg" else []
        cv2.imwrite(str(tmp_path / name), image, quality)
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "h.jpg").read_bytes())
    train = scans_of(tmp_path, *(f"{name}.jpg" for name in images))
    test = scans_of(tmp_path, "copy.jpg", *copies)
    found = {image: (kind.split()[1], other) for kind, image, other in shared_pictures(train, test)}
    assert found == {
        "copy.jpg": ("file", "h.jpg"), "a.png": ("picture", "a.jpg"),
        "low.jpg": ("picture", "b.jpg"), "small.webp": ("picture", "c.jpg"),
        "large.jpg": ("picture", "d.jpg"), "gray.png": ("picture", "e.jpg"),
    }  # fmt: skip
    assert list(shared_pictures({}, test)) == []
    assert list(shared_pictures(train, {})) == []


def test_flat_pictures_are_not_the_same(tmp_path: Path) -> None:
    for name, gray in (("a", 10), ("b", 200)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 40, 3), gray, np.uint8))
    assert list(shared_pictures(scans_of(tmp_path, "a.png"), scans_of(tmp_path, "b.png"))) == []


@pytest.mark.parametrize("size", [(1, 1), (31, 5000), (33, 47), (257, 300), (1031, 777)])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_size_is_that_of_the_whole_image(
    tmp_path: Path, size: tuple[int, int], suffix: str
) -> None:
    name = f"a{suffix}"
    cv2.imwrite(str(tmp_path / name), np.zeros((size[1], size[0], 3), np.uint8))
    scan = scan_image(ImageFolder(tmp_path), 10**8, name)
    assert scan.size == size
    assert scan.fault is None
    assert "pixels" in scan_image(ImageFolder(tmp_path), 0, name).fault[1]
