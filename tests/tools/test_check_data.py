"""tools/check_data.py finds planted faults, with image and person, and nothing in clean data."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from desk import Desk


class Fault(NamedTuple):
    kind: str
    image: str
    person: int | None


def found(desk: Desk, *opts: object) -> tuple[int, list[Fault], str]:
    """Run the command; return its exit code, findings and output."""
    done = desk.on_cfg("check_data", "--out", desk.folder / "check", *opts)
    assert done.code in (0, 1), done.err
    content = json.loads((desk.folder / "check/findings.json").read_text())
    return done.code, [Fault(f["kind"], f["image"], f["person"]) for f in content], done.out


def edit(desk: Desk, image_set: str, person: int, **changes: Any) -> str:
    """Change a person of the annotation; return the image."""
    path = desk.data / f"annot/{image_set}.json"
    people = json.loads(path.read_text())
    people[person] |= changes
    path.write_text(json.dumps(people))
    return people[person]["image"]


def person_of(desk: Desk, image_set: str, person: int) -> dict[str, Any]:
    return json.loads((desk.data / f"annot/{image_set}.json").read_text())[person]


def stand(offset: float = 0.0) -> list[list[float]]:
    """The joints of someone who stands upright and faces the camera, in an image of 64 pixels."""
    joints = [
        (28, 56), (28, 47), (29, 38), (35, 38), (36, 47), (36, 56), (32, 38), (32, 22), (32, 19),
        (32, 11), (18, 34), (22, 28), (27, 22), (37, 22), (42, 28), (46, 34),
    ]  # fmt: skip
    return [[x + offset, y] for x, y in joints]


@pytest.fixture
def clean(desk: Desk) -> Desk:
    """A desk whose people all stand upright, since a synthetic pose may look suspicious."""
    for image_set, count in (("train", 20), ("valid", 6)):
        for person in range(count):
            place = {"joints": stand(person % 5), "joints_vis": [1] * 16}
            edit(desk, image_set, person, center=[33 + person % 5, 31], scale=0.25, **place)
    return desk


def test_clean_data_has_no_findings_and_exit_code_0(clean: Desk) -> None:
    code, findings, out = found(clean)
    assert findings == []
    assert code == 0
    assert "train: 20 images, 20 people, 320 of 320 joints annotated" in out
    assert "| left_wrist | 6 | 20 |" in out
    sheet = cv2.imread(str(clean.folder / "check/train.jpg"))
    assert sheet.shape[1] == 8 * 256 + 7 * 4
    assert np.ptp(sheet[:256, :256]) > 100


def test_planted_faults_are_found(clean: Desk) -> None:
    images, planted = clean.data / "images", []

    def plant(kind: str, image: str, person: int | None = None) -> None:
        planted.append(Fault(kind, image, person))

    def name(image_set: str, person: int) -> str:
        return person_of(clean, image_set, person)["image"]

    (images / name("train", 0)).unlink()
    plant("missing image", name("train", 0))
    for person, damage in ((1, "text"), (2, "cut"), (3, "empty"), (4, "hole")):
        path = images / name("train", person)
        data = path.read_bytes()
        third, half = len(data) // 3, len(data) // 2
        contents = {"text": b"no image", "cut": data[:half], "empty": b""}
        path.write_bytes(contents.get(damage, data[:third] + data[half:]))
        plant("broken image", path.name)
    plant("box outside the image", edit(clean, "train", 5, center=[95, 31]), 5)
    planted.append(Fault("joint far from its box", name("train", 5), 5))
    far = stand()
    far[15] = [130, 34]
    plant("joint outside the image", edit(clean, "train", 6, joints=far), 6)
    planted.append(Fault("joint far from its box", name("train", 6), 6))
    small = edit(clean, "train", 7, center=[29, 52], scale=0.08)
    plant("joint far from its box", small, 7)
    swapped = stand()
    swapped[11], swapped[14] = swapped[14], swapped[11]
    plant("left and right swapped?", edit(clean, "train", 8, joints=swapped), 8)
    again = {key: person_of(clean, "train", 9)[key] for key in ("image", "joints", "center")}
    plant("person annotated twice", edit(clean, "train", 10, **again), 10)
    (images / name("valid", 0)).write_bytes((images / name("train", 11)).read_bytes())
    plant("same file in both sets", name("valid", 0))
    picture = cv2.imread(str(images / name("train", 12)))
    cv2.imwrite(str(images / name("valid", 1)), picture, [cv2.IMWRITE_JPEG_QUALITY, 30])
    plant("same picture in both sets", name("valid", 1))
    half = cv2.resize(cv2.imread(str(images / name("train", 13))), (48, 48))
    edit(clean, "valid", 2, image="half.png", joints_vis=[0] * 16)
    cv2.imwrite(str(images / "half.png"), half)
    plant("same picture in both sets", "half.png")

    code, findings, out = found(clean)
    assert code == 1
    assert sorted(findings, key=str) == sorted(planted, key=str)
    assert f"{len(planted)} findings" in out
    assert f"train {name('train', 8)}, person 8: " in out
    assert "right_elbow and left_elbow" in out
    assert f"valid {name('valid', 1)}: also {name('train', 12)} of train" in out
    assert len({fault.kind for fault in planted}) >= 9


def test_a_zip_file_and_a_shared_image(clean: Desk) -> None:
    shared = person_of(clean, "train", 0)["image"]
    edit(clean, "valid", 3, image=shared)
    broken = person_of(clean, "train", 1)["image"]
    with zipfile.ZipFile(clean.data / "images.zip", "w") as archive:
        for path in (clean.data / "images").iterdir():
            archive.writestr(path.name, b"no image" if path.name == broken else path.read_bytes())
    _, findings, _ = found(clean, "DATASET.DATA_FORMAT", "zip")
    assert findings == [
        Fault("broken image", broken, None),
        Fault("same file in both sets", shared, None),
    ]


def test_one_set_that_cannot_be_read_is_a_finding_two_are_an_error(clean: Desk) -> None:
    code, findings, out = found(clean, "DATASET.TEST_SET", "missing")
    assert code == 1
    assert findings == [Fault("annotation", "", None)]
    assert "missing.json" in out
    both = ("DATASET.TEST_SET", "missing", "DATASET.TRAIN_SET", "lost")
    clean.on_cfg("check_data", *both).fails_with("no such file")
    clean.on_cfg("check_data", "MODEL.NUM_JOINTS", 17).fails_with("MODEL.NUM_JOINTS")
    file = clean.folder / "file"
    file.write_text("")
    clean.on_cfg("check_data", "--out", file / "x").fails_with("cannot write")


def test_one_set_for_both_is_read_once(clean: Desk) -> None:
    code, findings, out = found(clean, "DATASET.TEST_SET", "train")
    assert (code, findings) == (0, [])
    assert out.count("20 people") == 1


def write_coco(root: Path, changes: dict[str, Any]) -> None:
    """Write two images with two people each, in COCO's layout."""
    names = [*"abcd"]
    images, annotations = [], []
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 255, (8, 10, 3), dtype=np.uint8)
        path = root / f"images/train/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(image, (100, 80)))
        images.append({"id": number, "file_name": path.name, "width": 100, "height": 80})
        for person in range(2):
            corner = 50 * person
            keypoints = [n for k in range(4) for n in (corner + 10 + 8 * k, 20 + 9 * k, 2)]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            entry |= {"bbox": [corner + 5, 15, 40, 40], "keypoints": keypoints}
            annotations.append(entry | changes.get(f"{number}{person}", {}))
    images[1] |= changes.get("image", {})
    categories = [{"id": 1, "name": "x", "keypoints": changes.get("names", names)}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations/person_keypoints_train.json").write_text(json.dumps(content))
    (root / "skeleton.yaml").write_text("names: [a, b, c, d]\nlimbs: [[a, b]]\n")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"names": ["b", "a", "c", "d"]}, [("names of joints", "")]),
        ({"image": {"width": 120, "height": 90}}, [("size of the image", "1.png")]),
        ({"01": {"bbox": [55, 15, 60, 40]}}, [("box outside the image", "0.png")]),
        ({"01": {"bbox": [-9, 15, 104, 40]}}, [("box outside the image", "0.png")]),
        ({"01": {"bbox": [55, 15, 0, 40]}}, [("box is empty", "0.png")]),
    ],
)
def test_coco(desk: Desk, changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    root = desk.folder / "own"
    write_coco(root, changes)
    opts: dict[str, object] = {
        "ROOT": root, "DATASET": "coco", "SKELETON": root / "skeleton.yaml",
        "TRAIN_SET": "train", "TEST_SET": "train",
    }  # fmt: skip
    words = [word for key, value in opts.items() for word in (f"DATASET.{key}", value)]
    _, findings, _ = found(desk, *words, "MODEL.NUM_JOINTS", 4)
    assert [(fault.kind, fault.image) for fault in findings] == expected
