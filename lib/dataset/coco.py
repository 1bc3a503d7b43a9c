"""COCO's layout: `annotations/person_keypoints_<set>.json` and the folder `images/<set>`.

Boxes become crops as in the HRNet family, so that published scores can be reproduced.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib.dataset.boxes import person_category, read_boxes
from lib.dataset.records import Annotation, Boxes, Record, read_numbers
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import PIXELS_PER_SCALE, box_error, box_to_center_scale
from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import is_valid_path, shorten

log = logging.getLogger(__name__)

_LABELLED = "person_keypoints"  # the names of files begin with it; `image_info` has no people


def read_coco(root: Path, image_set: str, skeleton: Skeleton, boxes: Boxes) -> Annotation:
    """Read a set in COCO's layout: annotated people, or detected ones if `boxes` has a file.

    Crowds, people without an annotated joint or with an empty box are left out. A set without
    annotation, `image_info_<set>.json`, needs detections. UserError names the file and the entry
    that is wrong.
    """
    paths = [root / f"annotations/{kind}_{image_set}.json" for kind in (_LABELLED, "image_info")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError(f"{paths[0]}: no such file; see docs/coco.md")
    content = load_coco(path, skeleton)
    if boxes.file is not None:
        records = _detected(content["images"], skeleton.num_joints, boxes, boxes.file)
    elif path == paths[0]:
        records = _annotated(content, boxes.size)
    else:
        raise UserError(
            f"{path}: has no people; name detections by TEST.USE_GT_BBOX false and "
            "TEST.COCO_BBOX_FILE"
        )
    if not records:
        raise UserError(f"{path}: nobody has an annotated joint and a box")
    folder = image_set.replace("test-dev", "test")  # a part of the same images
    return Annotation(records, path, path if path == paths[0] else None, f"images/{folder}")


def load_coco(path: str | Path, skeleton: Skeleton) -> dict[str, Any]:
    """Read an annotation file: its `images`, the `annotations` of people, their one category.

    `id` of annotations is replaced by 1, 2, … in their order, because COCO's tool takes 0 for no
    person, and `area`, `iscrowd`, `num_keypoints` and `keypoints` are added where they are missing.
    UserError names the entry that is wrong.
    """
    content = read_json(path)
    lists = [content.get(key, []) for key in _LISTS] if isinstance(content, dict) else [None]
    if not all(isinstance(x, list) and all(isinstance(entry, dict) for entry in x) for x in lists):
        raise UserError(f"{path}: must hold lists of objects, {', '.join(_LISTS)}, as in COCO")
    images, annotations, categories = lists
    for index, image in enumerate(images):
        _check_image(image, f"{path}: entry {index} of `images`")
    if not images:
        raise UserError(f"{path}: `images` is empty")
    person = person_category({"categories": categories, "annotations": annotations})
    people = [entry for entry in annotations if entry.get("category_id", person) == person]
    if annotations and not people:
        raise UserError(f"{path}: no annotation is of a person, `category_id` {person}")
    _check_unique(path, "images", "id", images)
    _check_unique(path, "images", "file_name", images)
    _check_unique(path, "annotations", "id", people)
    known = {image["id"] for image in images}
    for number, entry in enumerate(people, 1):
        where = f"{path}: annotation {shorten(str(entry.get('id', number - 1)))}"
        if not isinstance(entry.get("image_id"), int | str) or entry["image_id"] not in known:
            image = shorten(repr(entry.get("image_id")))
            raise UserError(f"{where}: `images` has none with the id {image}")
        _complete(entry, skeleton.num_joints, where)
        entry |= {"id": number, "category_id": person}
    return {"images": images, "annotations": people, "categories": [{"id": person}]}


_LISTS = ("images", "annotations", "categories")


def _check_image(image: dict[str, Any], where: str) -> None:
    name = image.get("file_name")
    if not isinstance(name, str) or not name or not is_valid_path(name):
        raise UserError(f"{where}: `file_name` must be a file name, not {shorten(repr(name))}")
    if not isinstance(image.get("id"), int | str):
        raise UserError(f"{where}: `id` must be a whole number")
    for side in ("width", "height"):
        if side in image:
            read_numbers(image, side, (), where)


def _check_unique(path: str | Path, field: str, key: str, entries: Sequence[dict]) -> None:
    values = [str(entry[key]) for entry in entries if key in entry]
    if len(set(values)) < len(values):
        ((value, count),) = Counter(values).most_common(1)
        raise UserError(f"{path}: `{field}` has {count} entries with {key} {shorten(value)}")


def _complete(entry: dict[str, Any], num_joints: int, where: str) -> None:
    """Check an annotation, and add what COCO's tool needs and other tools leave out."""
    *_, width, height = read_numbers(entry, "bbox", (4,), where).tolist()
    keypoints = entry.setdefault("keypoints", [0] * 3 * num_joints)
    if isinstance(keypoints, list) and len(keypoints) != 3 * num_joints:
        text = f"{len(keypoints)} numbers, not 3 for each of {num_joints} joints"
        raise UserError(f"{where}: `keypoints` has {text}: see DATASET.SKELETON, MODEL.NUM_JOINTS")
    visible = read_numbers(entry, "keypoints", (3 * num_joints,), where)[2::3] > 0
    entry.setdefault("area", width * height)
    entry.setdefault("iscrowd", 0)
    entry.setdefault("num_keypoints", int(visible.sum()))
    for key in ("area", "iscrowd", "num_keypoints"):
        if not isinstance(entry[key], int | float) or not math.isfinite(entry[key]):
            raise UserError(f"{where}: `{key}` must be a number, not {shorten(repr(entry[key]))}")


def _annotated(content: dict[str, Any], size: tuple[int, int]) -> list[Record]:
    """Return annotated people, ordered by image; their boxes are clipped to the image."""
    images = {image["id"]: (index, image) for index, image in enumerate(content["images"])}
    people = sorted(content["annotations"], key=lambda entry: images[entry["image_id"]][0])
    records = []
    for entry in people:
        image = images[entry["image_id"]][1]
        keypoints = np.reshape(np.array(entry["keypoints"], np.float32), (-1, 3))
        x, y, width, height = entry["bbox"]
        left, top = max(0, x), max(0, y)
        # The family's last pixel; the rest of a box begins at the border.
        right = min(image.get("width", math.inf) - 1, left + max(0, width - 1))
        bottom = min(image.get("height", math.inf) - 1, top + max(0, height - 1))
        box = (left, top, right - left, bottom - top)
        center, scale = _crop(box, size)
        usable = min(box[2:]) >= 0 and entry["area"] > 0 and scale[0] * PIXELS_PER_SCALE > 1
        visible = keypoints[:, 2] > 0
        if usable and visible.any() and not entry["iscrowd"]:
            record = Record(
                image["file_name"], center, scale, keypoints[:, :2] * visible[:, None],
                visible.astype(np.float32), float(entry["area"]),
            )  # fmt: skip
            records.append(record)
    return records


def _detected(
    images: Sequence[dict[str, Any]], num_joints: int, boxes: Boxes, path: Path
) -> list[Record]:
    """Return detected people, without joints, ordered by image."""
    file, records = read_boxes(path), []
    ids, names = ([str(image[key]) for image in images] for key in ("id", "file_name"))
    keys = ids if file.mentions(ids) else names
    file.check(keys)
    unusable, joints = 0, np.zeros((num_joints, 2), np.float32)
    for image, key in zip(images, keys, strict=True):
        shape = (image.get("height", math.inf), image.get("width", math.inf))
        for box in file.boxes_of(key, min_score=boxes.min_score):
            if box_error(box[:4], shape) is None:
                center, scale = _crop(box[:4], boxes.size)
                name, score = image["file_name"], float(box[4])
                records.append(Record(name, center, scale, joints, joints[:, 0], score=score))
            else:
                unusable += 1
    if unusable:
        log.warning("%s: %d boxes are empty or outside their images; ignored", path, unusable)
    if not records:
        raise UserError(f"{path}: no box of the set has the score TEST.IMAGE_THRE or more")
    return records


def _crop(
    box: Sequence[float] | np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return center and scale of the crop; the middle is x + width / 2, as in the family."""
    x, y, width, height = box
    return box_to_center_scale((x + 0.5, y + 0.5, width, height), size)
