"""Files of boxes: by name, as COCO detections, and malformed."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.dataset.boxes import BoxFile, read_boxes
from lib.utils.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "boxes.json"


def read(path: Path, content: object) -> BoxFile:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_boxes(path)


def test_a_mapping_gives_each_image_its_boxes(path: Path) -> None:
    boxes = read(path, {"a.jpg": [[1, 2, 3, 4], [5, 6, 7, 8, 0.5]], "day/b.jpg": [], "c": []})
    np.testing.assert_array_equal(boxes.boxes_of("a.jpg"), [[1, 2, 3, 4, 1], [5, 6, 7, 8, 0.5]])
    np.testing.assert_array_equal(boxes.boxes_of("folder/a.jpg"), boxes.boxes_of("a.jpg"))
    for name in ("day/b.jpg", "b.jpg", "other.jpg"):
        assert boxes.boxes_of(name).shape == (0, 5)


def test_folders_distinguish_images_of_the_same_name(path: Path) -> None:
    boxes = read(path, {"a.jpg": [[1, 2, 3, 4]], "day/a.jpg": [[5, 6, 7, 8]]})
    assert boxes.boxes_of("day/a.jpg")[0, 0] == 5
    assert boxes.boxes_of("night/a.jpg")[0, 0] == 1


def test_coco_detections_are_looked_up_by_number_or_name(path: Path) -> None:
    entries = [
        {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25},
        {"image_id": 139, "category_id": 18, "bbox": [9, 9, 9, 9], "score": 0.9},
        {"image_id": 7, "file_name": "b.jpg", "bbox": [5, 6, 7, 8]},
        {"file_name": "c.jpg", "bbox": [9, 9, 9, 9]},
    ]
    boxes = read(path, entries)
    np.testing.assert_array_equal(boxes.boxes_of("val/000000000139.jpg"), [[1, 2, 3, 4, 0.25]])
    np.testing.assert_array_equal(boxes.boxes_of("b.jpg"), [[5, 6, 7, 8, 1]])
    assert len(boxes.boxes_of("c.jpg")) == 1
    assert boxes.boxes_of("140.jpg").shape == (0, 5)
    names = ("val/000000000139.jpg", "b.jpg", "day/b.jpg", "c.jpg")
    assert [boxes.image_id(name) for name in names] == [139, 7, 7, None]


def test_boxes_of_a_video_hold_for_all_frames_or_one(path: Path) -> None:
    boxes = read(path, {"clip.mp4": [[1, 2, 3, 4]]})
    assert (
        boxes.boxes_of("clip.mp4", 0).tolist()
        == boxes.boxes_of("clip.mp4", 9).tolist()
        == [[1, 2, 3, 4, 1]]
    )
    boxes = read(path, [{"file_name": "clip.mp4", "image_id": 3, "bbox": [1, 2, 3, 4]}])
    assert len(boxes.boxes_of("clip.mp4", 3)) == 1
    assert len(boxes.boxes_of("clip.mp4", 4)) == 0


def test_a_file_for_other_images_is_an_error(path: Path) -> None:
    boxes = read(path, {"a.jpg": []})
    boxes.check(["b.jpg", "a.jpg"])
    with pytest.raises(UserError, match=r"boxes\.json.*a\.jpg.*b\.jpg"):
        boxes.check(["b.jpg"])
    with pytest.raises(UserError, match="nothing"):
        read(path, []).check(["b.jpg"])


def test_boxes_below_the_lowest_score_are_left_out(path: Path) -> None:
    boxes = read(path, {"a.jpg": [[1, 2, 3, 4, 0.25], [5, 6, 7, 8, 0.5], [5, 6, 7, 8]]})
    assert boxes.boxes_of("a.jpg", min_score=0.5)[:, 4].tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "JSON"),
        ("[" * 100_000, "JSON"),
        ("3", "names"),
        ({"a.jpg": 3}, "names"),
        ({"a.jpg": [1, 2, 3, 4]}, "x, y, width, height"),
        ({"a.jpg": [[1, 2, 3]]}, "x, y, width, height"),
        ({"a.jpg": [["a", 2, 3, 4]]}, "x, y, width, height"),
        ({"a.jpg": [[10**400, 2, 3, 4]]}, "x, y, width, height"),
        ('{"a.jpg": [[1, 2, 3, 4, NaN]]}', "'a.jpg': `score`"),
        ({"a.jpg": [[1, 2, 3, 4, "high"]]}, "'a.jpg': `score`"),
        ([3], "COCO"),
        ([{"image_id": 3}], "entry 0"),
        ([{"bbox": [1, 2, 3, 4]}], "image_id"),
        ([{"bbox": [1, 2, 3, 4], "image_id": 3.5}], "whole number"),
        ([{"bbox": [1, 2, 3, 4], "image_id": ["x"]}], "whole number"),
        ([{"bbox": None, "image_id": 3}], "x, y, width, height"),
        ([{"bbox": [1, 2, 3, 4], "file_name": 3.5}], "file_name"),
        ([{"bbox": [1, 2, 3, 4], "image_id": 3, "score": "high"}], "entry 0: `score`"),
        ([{"bbox": [1, 2, 3, 4], "image_id": 3, "score": [0.5]}], "entry 0: `score`"),
        ([{"bbox": [1, 2, 3, 4], "image_id": 3, "category_id": 18}], "`category_id` 1"),
        ({"annotations": [{}], "images": 3}, "`images`"),
        ({"annotations": [{}], "categories": {"id": 1}}, "`categories`"),
        ({"annotations": [{}]}, "entry 0"),
    ],
)
def test_a_malformed_file_is_a_one_line_error(path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read(path, content)
    line = str(raised.value)
    assert "boxes.json" in line
    assert message in line
    assert line.isprintable()
    assert len(line) < 600


DETECTION = {"image_id": 3, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("changes", "score"),
    [
        ({"score": "0.25"}, 0.25), ({"score": None}, 1), ({"score": 1}, 1), ({}, 1),
        ({"image_id": "3", "score": 0.5}, 0.5), ({"image_id": 3.0}, 1), ({"image_id": "0003"}, 1),
        ({"image_id": "a"}, 1), ({"image_id": "a.jpg"}, 1), ({"category_id": "1"}, 1),
        ({"category_id": 1.0}, 1), ({"category_id": None}, 1), ({"bbox": ["1", "2", "3", 4]}, 1),
        ({"bbox": [1, 2, 3, 4, "0.75"], "score": 0.5}, 0.75), ({"file_name": "day/a.jpg"}, 1),
        ({"file_name": "C:\\day\\a.jpg"}, 1), ({"file_name": None, "image_id": "a"}, 1),
    ],
)  # fmt: skip
def test_detections_are_read_as_tools_write_them(
    path: Path, changes: dict[str, object], score: float
) -> None:
    boxes = read(path, [DETECTION | changes])
    found = [boxes.boxes_of(name) for name in ("a.jpg", "003.jpg")]
    np.testing.assert_array_equal(np.concatenate(found), [[1, 2, 3, 4, score]])


def test_a_bare_name_must_be_of_one_image(path: Path) -> None:
    boxes = read(path, {"x/a.jpg": [[1, 2, 3, 4]], "y/a.jpg": [[1, 2, 3, 4]], "y/b.jpg": [[5] * 4]})
    assert len(boxes.boxes_of("a.jpg")) == len(boxes.boxes_of("z/a.jpg")) == 0
    assert len(boxes.boxes_of("b.jpg")) == len(boxes.boxes_of("z/b.jpg")) == 1


def test_categories_may_count_from_0(path: Path) -> None:
    entries = [
        DETECTION | {"image_id": image_id, "category_id": image_id % 2} for image_id in (4, 5)
    ]
    boxes = read(path, entries)
    assert (len(boxes.boxes_of("4.jpg")), len(boxes.boxes_of("5.jpg"))) == (1, 0)
    boxes = read(path, entries[1:])
    assert len(boxes.boxes_of("5.jpg")) == 1


@pytest.mark.parametrize(
    ("categories", "person"),
    [
        ([{"id": 1, "name": "person"}], 1), ([{"id": 7, "name": "rider"}], 7),
        ([{"id": 1, "name": "dog"}, {"id": "2", "name": "person"}], 2),
        ([{"id": 0, "name": "person"}, {"id": 1, "name": "car"}], 0),
    ],
)  # fmt: skip
def test_annotation_of_coco_gives_boxes(
    path: Path, categories: list[dict[str, object]], person: int
) -> None:
    annotations = [
        {"image_id": 9, "category_id": person, "bbox": [1, 2, 3, 4], "keypoints": [0] * 51},
        {"image_id": 9, "category_id": person, "bbox": [5, 6, 7, 8], "iscrowd": 1},
        {"image_id": 9, "category_id": person + 1, "bbox": [9, 9, 9, 9]},
    ]
    images = [{"id": 9, "file_name": "val/a.jpg"}, {"id": 10, "file_name": "val/b.jpg"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    boxes = read(path, {"info": {"year": 2017}, **content})
    for name in ("val/a.jpg", "a.jpg"):
        np.testing.assert_array_equal(boxes.boxes_of(name), [[1, 2, 3, 4, 1]])
    assert boxes.image_id("a.jpg") == 9
    boxes.check(["b.jpg"])  # known, without people
    assert len(boxes.boxes_of("b.jpg")) == 0


def test_real_annotation_gives_boxes(shared: Path) -> None:
    file = shared / "data/coco/annotations/person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    boxes = read_boxes(file)
    image = content["images"][0]
    people = [e for e in content["annotations"] if e["image_id"] == image["id"]]
    expected = [[*e["bbox"], 1] for e in people if not e["iscrowd"]]
    np.testing.assert_allclose(boxes.boxes_of(image["file_name"]), expected)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json"):
        read_boxes(tmp_path / "none.json")
