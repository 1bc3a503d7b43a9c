"""Draws the smallest data set of one's own: five pictures of fish with four joints, as COCO's JSON.

`python docs/make_own_data.py --out data/own`
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lib.utils.errors import UserError, as_user_error, run_command

SIDE = 160  # of a picture, pixels
SKELETON = """names: [head, tail, left_fin, right_fin]
limbs: [[head, left_fin], [head, right_fin], [left_fin, tail], [right_fin, tail]]
mirrors: [[left_fin, right_fin]]
"""
# Seen from above and swimming to the right, in lengths of the fish; y is down.
JOINTS = np.array([(0.5, 0), (-0.5, 0), (0.1, -0.3), (0.1, 0.3)])
COLORS = ((40, 40, 220), (200, 60, 40), (40, 190, 230), (60, 170, 60))  # of the joints, BGR
PICTURES = {"train": 4, "valid": 1}


def draw_fish(image: np.ndarray, middle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a fish near `middle`; return its joints [4, 2] in pixels."""
    length, angle = rng.uniform(48, 60), rng.uniform(-np.pi, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    joints = (JOINTS * length) @ turn + middle
    head, tail, left, right = np.rint(joints).astype(int).tolist()
    body = np.array([head, left, tail, right])
    cv2.fillPoly(image, [body], (150, 160, 170), cv2.LINE_AA)
    for (x, y), color in zip((head, tail, left, right), COLORS, strict=True):
        cv2.circle(image, (x, y), 5, color, -1, cv2.LINE_AA)
    return joints


def draw_set(folder: Path, count: int, rng: np.random.Generator) -> dict[str, Any]:
    """Draw pictures of four fish each; return their annotation in COCO's format."""
    category = {"id": 1, "name": "fish", "keypoints": ["head", "tail", "left_fin", "right_fin"]}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        image = np.full((SIDE, SIDE, 3), rng.integers(60, 120, 3), np.uint8)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": SIDE, "height": SIDE})
        for corner in ((40, 40), (120, 40), (40, 120), (120, 120)):
            joints = draw_fish(image, np.array(corner) + rng.uniform(-6, 6, 2), rng)
            low, high = joints.min(axis=0) - 5, joints.max(axis=0) + 5
            keypoints = [value for x, y in joints.round(1).tolist() for value in (x, y, 2)]
            box = np.clip([*low, *(high - low)], 0, SIDE).round(1).tolist()
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            annotations.append(entry | {"bbox": box, "keypoints": keypoints})
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
    return {"images": images, "annotations": annotations, "categories": [category]}


def main() -> None:
    """Write the data set to --out, which must not exist."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new folder, such as data/own")
    root: Path = parser.parse_args().out
    if root.exists():
        raise UserError(f"{root} exists: choose another folder")
    rng = np.random.default_rng(0)
    with as_user_error(f"cannot write to {root}"):
        (root / "annotations").mkdir(parents=True)
        (root / "skeleton.yaml").write_text(SKELETON)
        for name, count in PICTURES.items():
            (root / "images" / name).mkdir(parents=True)
            content = draw_set(root / "images" / name, count, rng)
            path = root / f"annotations/person_keypoints_{name}.json"
            path.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    run_command(main)
