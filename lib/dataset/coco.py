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

_KEYS = ("images", "annotations", "categories")


def read_coco(root: Path, image_set: str, skeleton: Skeleton, boxes: Boxes) -> Annotation:
    """Read a set in COCO's layout: annotated people, or detected ones if `boxes` has a file.

    Crowds, and people without an annotated joint or with an empty box, are left out. A set without
    annotation, `image_info_<set>.json`, needs detections. UserError names the entry that is wrong.
    """
    gt_path = root / f"annotations/person_keypoints_{image_set}.json"
    info = root / f"annotations/image_info_{image_set}.json"
    path = info if info.is_file() and not gt_path.is_file() else gt_path
    if not path.is_file():
        raise UserError(f"{path}: no such file; see DATASET.ROOT and docs/coco.md")
    content = load_coco(path, skeleton)
    if boxes.file is not None:
        records = _detected(content["images"], skeleton.num_joints, boxes, boxes.file)
    else:
        records = _annotated(content, boxes.size)
    if not records:
        raise UserError(
            f"{path}: nobody has an annotated joint and a box; TEST.COCO_BBOX_FILE and "
            "TEST.USE_GT_BBOX false test on detected people"
        )
    folder = image_set.replace("test-dev", "test")  # of the same images
    return Annotation(records, path, gt_path if path == gt_path else None, f"images/{folder}")


def load_coco(path: str | Path, skeleton: Skeleton) -> dict[str, Any]:
    """Read an annotation file: its `images`, the `annotations` of people, their one category.

    Annotations are numbered from 1, because COCO's tool takes the id 0 for nobody, and get the
    fields that other tools leave out. UserError names the entry that is wrong.
    """
    content = read_json(path)
    lists: list[Any] = [content.get(k, []) if isinstance(content, dict) else None for k in _KEYS]
    if not all(isinstance(x, list) and all(isinstance(y, dict) for y in x) for x in lists):
        raise UserError(f"{path}: must hold lists of objects, {', '.join(_KEYS)}, as in COCO")
    images, annotations, categories = lists
    person = person_category({"categories": categories, "annotations": annotations})
    people = [entry for entry in annotations if entry.get("category_id", person) == person]
    if not images or (annotations and not people):
        raise UserError(f"{path}: has no images, or no annotation of `category_id` {person}")
    for index, image in enumerate(images):
        where, name = f"{path}: entry {index} of `images`", image.get("file_name")
        is_named = isinstance(name, str) and name and is_valid_path(name)
        if not is_named or not isinstance(image.get("id"), int | str):
            raise UserError(f"{where}: needs `file_name`, a path, and `id`, a whole number")
        for side in {"width", "height"} & image.keys():
            image[side] = float(read_numbers(image, side, (), where))
    for entries, key in ((images, "id"), (images, "file_name"), (people, "id")):
        values = Counter(str(entry[key]) for entry in entries if key in entry)
        value, count = max(values.items(), key=lambda item: item[1], default=("", 0))
        if count > 1:
            raise UserError(f"{path}: {count} entries have the `{key}` {shorten(value)}")
    known = {image["id"] for image in images}
    for number, entry in enumerate(people, 1):
        where = f"{path}: annotation {shorten(str(entry.get('id', number - 1)))}"
        image_id = entry.get("image_id")
        if not isinstance(image_id, int | str) or image_id not in known:
            raise UserError(f"{where}: `images` has no `id` {shorten(repr(image_id))}")
        _complete(entry, skeleton.num_joints, where)
        entry |= {"id": number, "category_id": person}
    return {"images": images, "annotations": people, "categories": [{"id": person}]}


def _complete(entry: dict[str, Any], num_joints: int, where: str) -> None:
    """Check an annotation, and add the fields that it lacks."""
    entry["bbox"] = read_numbers(entry, "bbox", (4,), where).tolist()
    keypoints = entry.setdefault("keypoints", [0] * 3 * num_joints)
    if isinstance(keypoints, list) and len(keypoints) != 3 * num_joints:
        text = f"`keypoints` has {len(keypoints)} numbers, not 3 for each of {num_joints} joints"
        raise UserError(f"{where}: {text}; see DATASET.SKELETON")
    entry["keypoints"] = read_numbers(entry, "keypoints", (3 * num_joints,), where).tolist()
    annotated = sum(flag > 0 for flag in entry["keypoints"][2::3])
    defaults = {"area": math.prod(entry["bbox"][2:]), "iscrowd": 0, "num_keypoints": annotated}
    for key, default in defaults.items():
        value = entry.setdefault(key, default)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{where}: `{key}` must be a number, not {shorten(repr(value))}")


def _annotated(content: dict[str, Any], size: tuple[int, int]) -> list[Record]:
    """Return annotated people, ordered by image; their boxes are clipped to the image."""
    images = {image["id"]: (order, image) for order, image in enumerate(content["images"])}
    records = []
    for entry in sorted(content["annotations"], key=lambda entry: images[entry["image_id"]][0]):
        image = images[entry["image_id"]][1]
        joints = np.reshape(np.array(entry["keypoints"], np.float32), (-1, 3))
        visible = joints[:, 2] > 0
        x, y, width, height = entry["bbox"]
        left, top = max(0, x), max(0, y)  # to the last pixel, as the family computes it
        width = min(image.get("width", math.inf) - 1 - left, max(0, width - 1))
        height = min(image.get("height", math.inf) - 1 - top, max(0, height - 1))
        center, scale = _crop((left, top, width, height), size)
        has_box = min(width, height) >= 0 and scale[0] * PIXELS_PER_SCALE > 1 and entry["area"] > 0
        if has_box and visible.any() and not entry["iscrowd"]:
            points, area = joints[:, :2] * visible[:, None], float(entry["area"])
            seen, side = visible.astype(np.float32), float(max(entry["bbox"][2:]))
            records.append(Record(image["file_name"], center, scale, points, seen, area, side=side))
    return records


def _detected(
    images: Sequence[dict[str, Any]], num_joints: int, boxes: Boxes, path: Path
) -> list[Record]:
    """Return detected people, without joints, ordered by image."""
    file = read_boxes(path)
    ids, names = ([str(image[key]) for image in images] for key in ("id", "file_name"))
    keys = ids if file.mentions(ids) else names
    file.check(keys)
    records, unusable, joints = [], 0, np.zeros((num_joints, 2), np.float32)
    for image, key in zip(images, keys, strict=True):
        shape = (image.get("height", math.inf), image.get("width", math.inf))
        for *box, score in file.boxes_of(key, min_score=boxes.min_score).tolist():
            if box_error(box, shape):
                unusable += 1
            else:
                view = _crop(box, boxes.size)
                records.append(Record(image["file_name"], *view, joints, joints[:, 0], 0.0, score))
    if unusable:
        log.warning("%s: %d boxes are empty or outside their images; ignored", path, unusable)
    if not records:
        raise UserError(f"{path}: no box has the score TEST.IMAGE_THRE or more and is in its image")
    return records


def _crop(box: Sequence[float], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return center and scale of the crop; the middle is x + width / 2, as in the family."""
    x, y, width, height = box
    return box_to_center_scale((x + 0.5, y + 0.5, width, height), size)
