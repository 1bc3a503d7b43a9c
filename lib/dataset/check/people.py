"""Faults of annotated people: their boxes and their joints."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lib.dataset.boxes import person_category
from lib.dataset.check.images import Scan
from lib.dataset.check.sides import swapped_sides
from lib.dataset.records import Annotation, Record
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import MARGIN, PIXELS_PER_SCALE
from lib.utils.files import read_json
from lib.utils.text import join_names

Fault = tuple[str, str, int | None, str]  # kind, image, person (index in the annotation), text

MIN_INSIDE = 1 / 3  # of a crop's area; everyone of MPII and LSPET has more inside the image
MAX_DISTANCE = 0.03  # of the box, between the joints of a person who is annotated twice


def people_faults(
    annotation: Annotation, scans: Mapping[str, Scan], skeleton: Skeleton
) -> Iterator[Fault]:
    """Yield what is wrong or suspicious about people, in the order of the annotation."""
    earlier: defaultdict[str, list[int]] = defaultdict(list)
    swapped = swapped_sides(annotation, skeleton)
    for index, record in enumerate(annotation.records):
        faults = list(_box_faults(record, scans[record.image].size, skeleton))
        if index in swapped:
            faults.append(("left and right swapped?", join_names(swapped[index], 4)))
        for other in earlier[record.image]:
            if _is_same(record, annotation.records[other]):
                faults.append(("person annotated twice", f"the same as person {other}"))
        earlier[record.image].append(index)
        yield from ((kind, record.image, index, text) for kind, text in faults)


def _box_faults(
    record: Record, size: tuple[int, int], skeleton: Skeleton
) -> Iterator[tuple[str, str]]:
    half, known = record.scale * PIXELS_PER_SCALE / 2, min(size) > 0
    shown = np.minimum(record.center + half, size) - np.maximum(record.center - half, 0)
    if known and np.clip(shown, 0, None).prod() < MIN_INSIDE * 4 * half.prod():
        corner, sides = np.rint(record.center - half).astype(int), np.rint(2 * half).astype(int)
        box = f"{sides[0]}×{sides[1]} at ({corner[0]}, {corner[1]})"
        yield "box outside the image", f"the crop is {box}, the image {size[0]}×{size[1]}"
    outside = (record.joints < -1.5) | (record.joints > np.array(size) + 0.5)
    far = np.abs(record.joints - record.center) > MARGIN * half
    for kind, is_wrong in (
        ("joint outside the image", outside & known),
        ("joint far from its box", far),
    ):
        joints = np.flatnonzero(is_wrong.any(axis=1) & (record.visible > 0))
        names = [
            f"{skeleton.names[j]} ({record.joints[j, 0]:.0f}, {record.joints[j, 1]:.0f})"
            for j in joints
        ]
        if names:
            yield kind, join_names(names)


def _is_same(first: Record, second: Record) -> bool:
    counts = (first.visible > 0).astype(int) + (second.visible > 0)
    distances = np.abs(first.joints - second.joints)[counts == 2]
    enough = (counts == 2).sum() > (counts == 1).sum()
    return bool(enough and distances.max() <= MAX_DISTANCE * first.scale.max() * PIXELS_PER_SCALE)


def coco_faults(path: Path, scans: Mapping[str, Scan], skeleton: Skeleton) -> Iterator[Fault]:
    """Yield what COCO's reader corrects or leaves out: boxes, sizes of images, names of joints."""
    content = read_json(path)
    person = person_category(content)
    images = {image["id"]: image for image in content["images"]}
    for category in content.get("categories", []):
        names = category.get("keypoints", skeleton.names)
        if category.get("id") == person and tuple(names) != skeleton.names:
            yield (
                "names of joints",
                "",
                None,
                f"{path}: {join_names(names, 40)}, not {skeleton.names}",
            )
    for image in images.values():
        size = scans[image["file_name"]].size if image["file_name"] in scans else (0, 0)
        stated = image.get("width", size[0]), image.get("height", size[1])
        if min(size) > 0 and stated != size:
            text = f"the annotation says {stated[0]}×{stated[1]}, the file is {size[0]}×{size[1]}"
            yield "size of the image", image["file_name"], None, text
    for index, entry in enumerate(content["annotations"]):
        image, (x, y, width, height) = images[entry["image_id"]], entry["bbox"]
        right, bottom = image.get("width", np.inf), image.get("height", np.inf)
        is_outside = min(x, y) < -1 or x + width > right + 1 or y + height > bottom + 1
        if entry.get("category_id", person) == person and (is_outside or min(width, height) <= 0):
            text = f"annotation {entry.get('id', index)}: x, y, width, height = {entry['bbox']}"
            kind = "box outside the image" if is_outside else "empty box"
            yield kind, image["file_name"], None, f"{text}, the image is {right}×{bottom}"
