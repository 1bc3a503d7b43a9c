"""Scores a network on people of COCO, and draws them and people of MPII on one sheet.

`python docs/people_sheet.py --cfg FILE --coco ROOT --mpii ROOT --out FILE TEST.MODEL_FILE WEIGHTS`

COCO's people are predicted from their annotated boxes and scored with OKS over the joints that both
skeletons name; crowds, and people without such a joint, are excluded. MPII's, `annot/sample.json`,
are only drawn; tools/test.py scores them. The sheet has MPII's first, then COCO's from the best OKS
to the worst. All images are in memory, so use a small part of COCO.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lib.config import load_cfg
from lib.dataset.images import ImageFolder, decode_image
from lib.dataset.mpii import read_mpii
from lib.dataset.records import Boxes
from lib.dataset.skeleton import COCO, MPII, Skeleton
from lib.dataset.transforms import (
    MARGIN,
    PIXELS_PER_SCALE,
    box_to_center_scale,
    crop_image,
    crop_matrix,
    transform_points,
)
from lib.predictor import Person, Predictor
from lib.utils.arguments import command_parser, overrides
from lib.utils.drawing import draw_person, grid
from lib.utils.errors import UserError, as_user_error, run_command
from lib.utils.files import read_json, write_bytes

SIGMAS = {
    "nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062,
    "hip": 0.107, "knee": 0.087, "ankle": 0.089,
}  # fmt: skip  # of COCO's annotators, by the last word of the joint's name
TILE = 96  # pixels
COLUMNS = 12
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 80]


@dataclass(frozen=True, eq=False)
class Subject:
    """A person to predict; `box` is x, y, width, height, and COCO annotates the rest."""

    image: np.ndarray  # uint8 RGB [H, W, 3]
    box: np.ndarray  # float64 [4]
    keypoints: np.ndarray  # float64 [17, 3]: x, y, and 0 if the joint is not labelled
    area: float = 0.0  # of the person, in square pixels


def shared_joints(skeleton: Skeleton) -> tuple[list[int], list[int]]:
    """Return the joints with COCO's names: their indices in `skeleton` and in COCO's."""
    names = [name for name in COCO.names if name in skeleton.names]
    return [skeleton.names.index(n) for n in names], [COCO.names.index(n) for n in names]


def oks(joints: np.ndarray, keypoints: np.ndarray, area: float, skeleton: Skeleton) -> float:
    """Return the object keypoint similarity of `joints` [J, 2] to COCO's `keypoints` [17, 3].

    The mean of exp(-d² / (2 area (2σ)²)) over the labelled joints that both skeletons have, as
    COCOeval computes it; nan if there are none.
    """
    ours, theirs = shared_joints(skeleton)
    sigmas = np.array([SIGMAS[COCO.names[joint].rpartition("_")[2]] for joint in theirs])
    squares = ((joints[ours] - keypoints[theirs, :2]) ** 2).sum(axis=1)
    labelled = keypoints[theirs, 2] > 0
    similarity = np.exp(-squares / (2 * area * (2 * sigmas) ** 2))[labelled]
    return float(similarity.mean()) if labelled.any() else float("nan")


def read_coco(root: Path, skeleton: Skeleton) -> list[Subject]:
    """Read the people of annotations/person_keypoints_*2017.json; UserError names a bad file."""
    subjects, joints = [], shared_joints(skeleton)[1]
    paths = sorted((root / "annotations").glob("person_keypoints_*2017.json"))
    if not paths:
        raise UserError(f"{root}: has no annotations/person_keypoints_*2017.json; correct --coco")
    for path in paths:
        content = read_json(path)
        folder = ImageFolder(root / "images" / path.stem.rpartition("_")[2])
        with as_user_error(f"{path}: is not COCO's annotation of keypoints"):
            images = {e["id"]: _read_image(folder, e["file_name"]) for e in content["images"]}
            for entry in content["annotations"]:
                keypoints = np.reshape(np.array(entry["keypoints"], np.float64), (17, 3))
                if not entry["iscrowd"] and (keypoints[joints, 2] > 0).any():
                    box = np.array(entry["bbox"], np.float64)
                    image = images[entry["image_id"]]
                    subjects.append(Subject(image, box, keypoints, float(entry["area"])))
    return subjects


def read_sample(root: Path) -> list[Subject]:
    """Read the people of MPII's annot/sample.json; their boxes give the crops of the data set."""
    folder, subjects = ImageFolder(root / "images"), []
    for record in read_mpii(root, "sample", MPII, Boxes((128, 128))).records:
        size = record.scale * (PIXELS_PER_SCALE / MARGIN)
        box = np.concatenate([record.center - (size - 1) / 2, size])
        subjects.append(Subject(_read_image(folder, record.image), box, np.zeros((17, 3))))
    return subjects


def draw_tile(subject: Subject, person: Person, skeleton: Skeleton) -> np.ndarray:
    """Return the person's crop, uint8 [TILE, TILE, 3], with the predicted joints."""
    size = (TILE, TILE)
    matrix = crop_matrix(*box_to_center_scale(subject.box, size), 0.0, size)
    tile, joints = crop_image(subject.image, matrix, size), transform_points(person.joints, matrix)
    return draw_person(tile, joints, person.scores, skeleton)


def summary(scores: Sequence[float], skeleton: Skeleton) -> str:
    """Return one line about the OKS of the people."""
    share, joints = np.mean(np.array(scores) >= 0.5), len(shared_joints(skeleton)[0])
    people = f"COCO, {len(scores)} people in annotated boxes, {joints} joints"
    return f"{people}: mean OKS {np.mean(scores):.3f}, OKS of 0.5 or more {share:.0%}"


def main() -> None:
    """Predict, print the scores, write the sheet."""
    parser = command_parser(__doc__ or "")
    parser.add_argument("--coco", type=Path, required=True, metavar="ROOT")
    parser.add_argument("--mpii", type=Path, required=True, metavar="ROOT")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the sheet, a .jpg")
    arguments = parser.parse_intermixed_args()
    cfg = load_cfg(arguments.cfg, overrides(arguments))
    if not cfg.TEST.MODEL_FILE:
        raise UserError("TEST.MODEL_FILE: add it with the weights to the command")
    predictor = Predictor(cfg, cfg.TEST.MODEL_FILE)
    skeleton = predictor.skeleton
    sample, coco = read_sample(arguments.mpii), read_coco(arguments.coco, skeleton)
    subjects = sample + coco
    people = [person for (person,) in predictor.stream((s.image, [s.box]) for s in subjects)]
    pairs = zip(coco, people[len(sample) :], strict=True)
    scores = [oks(person.joints, s.keypoints, s.area, skeleton) for s, person in pairs]
    sys.stdout.write(f"{summary(scores, skeleton)}\n")
    order = [*range(len(sample)), *(len(sample) + np.argsort(scores)[::-1])]
    tiles = [draw_tile(subjects[index], people[index], skeleton) for index in order]
    sheet = cv2.cvtColor(grid(tiles, COLUMNS), cv2.COLOR_RGB2BGR)
    write_bytes(arguments.out, cv2.imencode(".jpg", sheet, QUALITY)[1].tobytes())


def _read_image(folder: ImageFolder, name: str) -> np.ndarray:
    return cv2.cvtColor(decode_image(folder.read(name), name), cv2.COLOR_BGR2RGB)


if __name__ == "__main__":
    run_command(main)
