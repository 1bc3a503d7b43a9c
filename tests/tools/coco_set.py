"""A small data set in COCO's layout, drawn: people are coloured dots."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lib.dataset.skeleton import COCO

# (x, y) of each joint in a box of 40×80 pixels
POSE = np.array(
    [
        (20, 8), (23, 5), (17, 5), (26, 7), (14, 7), (30, 20), (10, 20), (35, 32), (5, 32),
        (37, 44), (3, 44), (27, 45), (13, 45), (28, 60), (12, 60), (29, 76), (11, 76),
    ]
)  # fmt: skip


def person(image_id: int, number: int, left: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the annotation of a person whose box begins at x = `left`, y = 10."""
    joints = POSE + np.array([left, 10]) + rng.integers(-2, 3, POSE.shape)
    visible = np.where(np.arange(17) % 7 == 3, 0, 2)
    keypoints = np.column_stack([joints, visible]) * (visible > 0)[:, None]
    return {
        "id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, "area": 1800.5,
        "bbox": [left, 10, 40, 80], "keypoints": keypoints.ravel().tolist(), "num_keypoints": 15,
        "segmentation": [[left, 10, left + 40, 10, left + 40, 90]],
    }  # fmt: skip


def write_coco(root: Path, images: dict[str, int]) -> None:
    """Write sets with a number of images each; a set's first image also has people to leave out."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for image_set, count in images.items():
        folder = root / "images" / image_set
        folder.mkdir(parents=True)
        entries, people = [], []
        for image_id in range(7, 7 + count):
            entries.append(
                {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": 120, "height": 100}
            )
            both = [person(image_id, 10 * image_id + side, 10 + 50 * side, rng) for side in (0, 1)]
            people += both
            image = np.full((100, 120, 3), 60, np.uint8)
            for x, y, v in np.reshape([one["keypoints"] for one in both], (-1, 3)).tolist():
                if v:
                    cv2.circle(image, (x, y), 2, (0, 200, 255), -1)
            cv2.imwrite(str(folder / f"{image_id:012d}.jpg"), image)
        first = people[0]
        rle = {"counts": [0, 12000], "size": [100, 120]}
        people += [
            first | {"id": 1, "iscrowd": 1, "segmentation": rle, "keypoints": [0] * 51}
            | {"num_keypoints": 0},
            first | {"id": 2, "keypoints": [0] * 51, "num_keypoints": 0, "bbox": [80, 5, 30, 30]},
        ]  # fmt: skip
        content = {
            "images": entries,
            "annotations": people,
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
        }
        path = root / f"annotations/person_keypoints_{image_set}.json"
        path.write_text(json.dumps(content))


def detections(path: Path) -> list[dict[str, Any]]:
    """Return the people of an annotation file as detections, the first image's with less score."""
    entries = json.loads(path.read_text())["annotations"]
    first = entries[0]["image_id"]
    return [
        {"image_id": e["image_id"], "category_id": 1, "bbox": e["bbox"]}
        | {"score": 0.4 if e["image_id"] == first else 0.9}
        for e in entries
        if not e["iscrowd"] and e["num_keypoints"]
    ]
