"""COCO's annotation is read as HRNet reads it; wrong files are errors of one line."""

import copy
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_set import detections
from yacs.config import CfgNode

from lib.config import get_cfg, load_cfg
from lib.dataset import build_dataset, read_annotation
from lib.dataset.coco import load_coco, read_coco
from lib.dataset.records import Boxes, People
from lib.dataset.skeleton import COCO

SIZE = (48, 64)
GT = "annotations/person_keypoints_val2017.json"


@pytest.fixture
def root(coco: Path, tmp_path: Path) -> Path:
    """Return a copy of the data set that a test may change."""
    return Path(shutil.copytree(coco, tmp_path / "coco"))


@pytest.fixture
def cfg(root: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.DATASET.DATASET, cfg.DATASET.ROOT, cfg.MODEL.NUM_JOINTS = "coco", str(root), 17
    cfg.DATASET.TRAIN_SET, cfg.DATASET.TEST_SET = "train2017", "val2017"
    cfg.MODEL.IMAGE_SIZE = list(SIZE)
    return cfg


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def hrnet_box(box: list[float], width: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """HRNet's clean box, center and scale of a crop of SIZE."""
    x1, y1 = max(0, box[0]), max(0, box[1])
    x2 = min(width - 1, x1 + max(0, box[2] - 1))
    y2 = min(height - 1, y1 + max(0, box[3] - 1))
    w, h = x2 - x1, y2 - y1
    center, ratio = np.array([x1 + w * 0.5, y1 + h * 0.5]), SIZE[0] / SIZE[1]
    w, h = (w, w / ratio) if w > ratio * h else (h * ratio, h)
    return center, np.array([w, h]) / 200 * 1.25


@pytest.mark.parametrize("box", [[10, 10, 40, 80], [-5.5, -3, 60, 30], [80, 50, 90.25, 90]])
def test_boxes_are_those_of_hrnet(root: Path, box: list[float]) -> None:
    change(root / GT, lambda content: content["annotations"][0].update(bbox=box))
    record = read_coco(root, "val2017", COCO, Boxes(SIZE)).records[0]
    center, scale = hrnet_box(box, 120, 100)
    np.testing.assert_allclose(record.center, center)
    np.testing.assert_allclose(record.scale, scale)


def test_people_have_their_joints_and_area(root: Path) -> None:
    annotation = read_coco(root, "val2017", COCO, Boxes(SIZE))
    assert len(annotation.records) == 10  # neither the crowd nor the one without joints
    entries = json.loads((root / GT).read_text())["annotations"]
    for record, entry in zip(annotation.records, entries, strict=False):
        keypoints = np.reshape(entry["keypoints"], (17, 3))
        assert record.image == f"{entry['image_id']:012d}.jpg"
        np.testing.assert_array_equal(record.joints, keypoints[:, :2])
        np.testing.assert_array_equal(record.visible, keypoints[:, 2] > 0)
        assert (record.area, record.score) == (1800.5, 1.0)
    assert annotation.gt_path == root / GT
    assert isinstance(annotation.records, People)


@pytest.mark.parametrize("field", ["num_keypoints", "iscrowd", "area", "segmentation", "id"])
def test_fields_that_other_tools_leave_out_are_added(root: Path, field: str) -> None:
    before = load_coco(root / GT, COCO)["annotations"][2]
    change(root / GT, lambda content: [x.pop(field) for x in content["annotations"][:-2]])
    after = load_coco(root / GT, COCO)["annotations"][2]
    before.pop("segmentation")
    assert after.items() >= (before | ({"area": 3200} if field == "area" else {})).items()


def test_images_are_found_as_files_and_in_the_family_s_zip(cfg: CfgNode, root: Path) -> None:
    for split in ("train", "test"):
        plain = build_dataset(cfg, split)
        folder = root / plain.annotation.folder
        for prefix in ("", f"{folder.name}/"):  # as HRNet wants it, as COCO packs it
            with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
                for path in folder.iterdir():
                    archive.write(path, prefix + path.name)
            cfg.DATASET.DATA_FORMAT = "zip"
            packed = build_dataset(cfg, split)
            np.testing.assert_array_equal(packed[3]["image"], plain[3]["image"])
            cfg.DATASET.DATA_FORMAT = "jpg"


def test_detected_people_replace_annotated_ones_in_the_test(cfg: CfgNode, root: Path) -> None:
    found = detections(root / GT)
    found[1]["bbox"] = [500, 500, 20, 20]
    found += [found[2] | {"category_id": 3}, found[2] | {"bbox": [30.5, 20, 40, 20], "score": 0.5}]
    (root / "found.json").write_text(json.dumps(found))
    cfg.TEST.USE_GT_BBOX, cfg.TEST.COCO_BBOX_FILE = False, str(root / "found.json")
    records = read_annotation(cfg, "test").records
    assert [record.score for record in records] == [0.4, 0.9, 0.9, 0.5, *[0.9] * 6]
    np.testing.assert_allclose(records[3].center, [50.5, 30])  # not clipped, as in HRNet
    np.testing.assert_allclose(records[3].scale, np.array([40, 40 * 64 / 48]) / 160)
    assert not any(record.visible.any() for record in records)
    assert len(read_annotation(cfg, "train").records) == 16
    cfg.TEST.IMAGE_THRE = 0.5
    assert len(read_annotation(cfg, "test").records) == 9
    by_name = {f"{one['image_id']:012d}.jpg": [[*one["bbox"], one["score"]]] for one in found[2:4]}
    (root / "found.json").write_text(json.dumps(by_name))
    assert len(read_annotation(cfg, "test").records) == 1


def test_images_are_found_by_id_not_by_a_number_in_their_name(cfg: CfgNode, root: Path) -> None:
    change(
        root / GT, lambda content: [image.update(id=image["id"] + 1) for image in content["images"]]
    )
    change(
        root / GT,
        lambda content: [x.update(image_id=x["image_id"] + 1) for x in content["annotations"]],
    )
    (root / "found.json").write_text(json.dumps(detections(root / GT)))
    cfg.TEST.USE_GT_BBOX, cfg.TEST.COCO_BBOX_FILE = False, str(root / "found.json")
    assert len(read_annotation(cfg, "test").records) == 10


def test_a_set_without_annotation_needs_detections(
    cfg: CfgNode, root: Path, one_line: Callable[..., None]
) -> None:
    (root / "found.json").write_text(json.dumps(detections(root / GT)))
    content = json.loads((root / GT).read_text())
    info = root / "annotations/image_info_test-dev2017.json"
    info.write_text(json.dumps({"images": content["images"], "categories": []}))
    (root / "images/val2017").rename(root / "images/test2017")
    cfg.DATASET.TEST_SET = "test-dev2017"
    one_line(lambda: build_dataset(cfg, "test"), "image_info", "TEST.COCO_BBOX_FILE")
    cfg.TEST.USE_GT_BBOX, cfg.TEST.COCO_BBOX_FILE = False, str(root / "found.json")
    dataset = build_dataset(cfg, "test")
    assert dataset.annotation.gt_path is None
    assert dataset[0]["image"].shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ([], "nothing"),
        ([{"image_id": 999, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 1}], "999"),
        ([{"image_id": 7, "category_id": 3, "bbox": [1, 1, 9, 9], "score": 1}], "person"),
        ([{"image_id": 7, "category_id": 1, "bbox": [1, 1, 9], "score": 1}], "entry 0"),
        ([{"image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0}], "IMAGE_THRE"),
        (
            [{"image_id": 7, "category_id": 1, "bbox": [900, 1, 9, 9], "score": 1}],
            "is in its image",
        ),
        ("[{", "JSON"),
    ],
)
def test_a_wrong_file_of_detections_is_an_error(
    cfg: CfgNode, root: Path, content: Any, word: str, one_line: Callable[..., None]
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "found.json").write_text(text)
    cfg.TEST.USE_GT_BBOX, cfg.TEST.COCO_BBOX_FILE = False, str(root / "found.json")
    cfg.TEST.IMAGE_THRE = 0.1
    one_line(lambda: read_annotation(cfg, "test"), "found.json", word)


def test_the_file_of_detections_must_be_named(
    tmp_path: Path, one_line: Callable[..., None]
) -> None:
    (tmp_path / "a.yaml").write_text("DATASET: {DATASET: coco}\nTEST: {USE_GT_BBOX: false}")
    one_line(lambda: load_cfg(tmp_path / "a.yaml"), "TEST.COCO_BBOX_FILE", "TEST.USE_GT_BBOX")


@pytest.mark.parametrize(
    ("where", "fields", "words"),
    [
        (("images", 0), {"file_name": None}, ("entry 0", "file_name")),
        (("images", 0), {"id": None}, ("entry 0", "id")),
        (("images", 0), {"file_name": "a\nb.jpg"}, ("entry 0", "file_name")),
        (("images", 0), {"width": "wide"}, ("entry 0", "width")),
        (("images", 1), {"id": 7}, ("2 entries", "id", "7")),
        (("images", 1), {"file_name": "000000000007.jpg"}, ("2 entries", "file_name")),
        (("annotations", 3), {"id": 70}, ("2 entries", "id", "70")),
        (("annotations", 3), {"image_id": 99}, ("annotation 81", "99")),
        (("annotations", 3), {"image_id": None}, ("annotation 81", "None")),
        (("annotations", 3), {"image_id": [7]}, ("annotation 81", "[7]")),
        (("annotations", 3), {"keypoints": [1] * 48}, ("annotation 81", "48", "17 joints")),
        (("annotations", 3), {"keypoints": [None] * 51}, ("annotation 81", "keypoints")),
        (("annotations", 3), {"keypoints": "many"}, ("annotation 81", "keypoints")),
        (("annotations", 3), {"bbox": [1, 2, 3]}, ("annotation 81", "bbox")),
        (("annotations", 3), {"bbox": None}, ("annotation 81", "bbox")),
        (("annotations", 3), {"area": "large"}, ("annotation 81", "area")),
        (("annotations", 3), {"iscrowd": None}, ("annotation 81", "iscrowd")),
    ],
)
def test_a_wrong_entry_is_named(
    root: Path,
    where: tuple[str, int],
    fields: dict[str, Any],
    words: tuple[str, ...],
    one_line: Callable[..., None],
) -> None:
    change(root / GT, lambda content: content[where[0]][where[1]].update(fields))
    one_line(lambda: read_coco(root, "val2017", COCO, Boxes(SIZE)), GT, *words)


@pytest.mark.parametrize(
    "content",
    [
        [], 3, {}, {"images": []}, {"images": 3}, {"images": [3]}, {"annotations": [{}]},
        {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": None},
        {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"category_id": 5}]},
        {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []},
    ],
)  # fmt: skip
def test_other_files_are_refused(root: Path, content: Any, one_line: Callable[..., None]) -> None:
    (root / GT).write_text(json.dumps(content))
    one_line(lambda: read_coco(root, "val2017", COCO, Boxes(SIZE)), GT)


def test_a_missing_set_is_named(root: Path, one_line: Callable[..., None]) -> None:
    one_line(lambda: read_coco(root, "val", COCO, Boxes(SIZE)), "person_keypoints_val.json", "docs")


@pytest.mark.parametrize(
    "fields",
    [
        {"bbox": [10, 10, 0, 0]}, {"bbox": [10, 10, 1, 1]}, {"bbox": [200, 10, 40, 40]},
        {"bbox": [10, 10, -5, 20]}, {"area": 0}, {"area": -3}, {"iscrowd": 1},
        {"keypoints": [0] * 51},
    ],
)  # fmt: skip
def test_people_without_a_box_or_joints_are_left_out(root: Path, fields: dict[str, Any]) -> None:
    others = copy.copy(read_coco(root, "val2017", COCO, Boxes(SIZE)).records[1:])
    change(root / GT, lambda content: content["annotations"][0].update(fields))
    records = read_coco(root, "val2017", COCO, Boxes(SIZE)).records
    if fields.get("bbox") == [10, 10, -5, 20]:
        records = records[1:]  # HRNet makes a box of its left border
    assert [record.image for record in records] == [record.image for record in others]


def test_real_annotation_is_read(shared: Path) -> None:
    for image_set, people in (("train2017", 57), ("val2017", 46)):
        annotation = read_coco(shared / "data/coco", image_set, COCO, Boxes(SIZE))
        assert len(annotation.records) == people
        assert all(
            (shared / "data/coco" / annotation.folder / x).exists() for x in annotation.images
        )
