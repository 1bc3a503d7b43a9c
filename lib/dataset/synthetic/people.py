"""Synthetic people in MPII's layout: articulated, dressed, partly hidden, drawn from a seed.

Sizes, boxes and head boxes follow MPII's, so that PCKh is as strict as there. Left and right differ
only in what is visible: the face or the hair, the direction of the feet, what occludes what, a
breast pocket and a watch on the left.
"""

import json
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from lib.dataset.mpii import CENTER_SHIFT, ground_truth, set_paths
from lib.dataset.synthetic.drawing import draw_scene
from lib.dataset.synthetic.pose import Pose, sample_pose
from lib.utils.errors import UserError
from lib.utils.files import new_folder, read_json
from lib.utils.mat import write_mat

FORMAT = 2  # increases whenever the same seed draws other images
MIN_IMAGE_SIZE = 48  # below, a head is four pixels wide
JPEG_QUALITY = 92
CHUNK = 50  # people that a worker draws at a time
HEAD_ASPECT = 0.75  # width by height of the head box of an upright head


def sample_person(
    seed: int, name: str, index: int, image_size: int
) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    """Draw person `index` of the set `name`; it depends on these four arguments only.

    Returns the image (uint8 [S, S, 3], BGR), its record as in MPII's JSON, and its head box [2, 2]
    (upper left and lower right corner), in 1-based pixels. Joints outside the image are (-1, -1).
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), index])
    pose = sample_pose(rng)
    size = image_size * rng.uniform(0.1, 0.148)
    origin = _place(rng, pose, size, image_size)
    image = draw_scene(rng, pose, origin, size, image_size)

    joints = pose.joints[:, :2] * size + origin
    visible = ((joints >= 0) & (joints <= image_size - 1)).all(axis=1)
    # MPII's scale is 8/200 of the head size, and the head size 3/4 of the head's visible length.
    box_scale = 8 / 200 * 0.75 * (0.965 * size) * rng.lognormal(0, 0.06)
    # The box is centered on the visible joints of head, trunk and legs.
    inside = joints[:10][visible[:10]]
    center = (inside.min(axis=0) + inside.max(axis=0)) / 2
    center += rng.normal(0, 0.025, 2) * 250 * box_scale
    center[1] -= CENTER_SHIFT * box_scale  # the reader adds it
    record = {
        "image": f"{name}_{index:06d}.jpg",
        "center": (center + 1).round(2).tolist(),
        "scale": round(float(box_scale), 6),
        "joints": np.where(visible[:, None], joints + 1, -1).round(4).tolist(),
        "joints_vis": visible.astype(int).tolist(),
    }
    return image, record, head_box(joints[8], joints[9], size) + 1


def _place(rng: Generator, pose: Pose, size: float, image_size: int) -> np.ndarray:
    """Draw the pelvis' position (x, y, pixels): near the middle, with the head inside the image."""
    joints = pose.joints[:, :2] * size
    middle = (joints.min(axis=0) + joints.max(axis=0)) / 2
    origin = image_size * (0.5 + rng.uniform(-0.18, 0.18, 2)) - middle
    low, high = head_box(joints[8], joints[9], size)
    return np.clip(origin, -low, image_size - 1 - high)


def head_box(neck: np.ndarray, top: np.ndarray, size: float) -> np.ndarray:
    """Return the head's axis-aligned box, [2, 2] corners, in the pixels of upper neck and head top.

    It bounds an ellipse as long as the head and 3/4 as wide, so its diagonal is 5/4 of the length
    at any angle, as in MPII. A head seen from above or below is at least 0.8 `size` long, `size`
    being its true length.
    """
    projected = float(np.linalg.norm(top - neck))
    along = (top - neck) / max(projected, 1e-9)
    length = max(projected, 0.8 * size)
    half = length / 2 * np.sqrt(along**2 + (HEAD_ASPECT * along[::-1]) ** 2)
    middle = (neck + top) / 2
    return np.stack([middle - half, middle + half])


def make_synthetic(
    root: Path,
    counts: Mapping[str, int],
    seed: int,
    image_size: int = 112,
    workers: int = 0,
    overwrite: bool = False,
) -> bool:
    """Write `counts` people (by name of the set) under `root` in MPII's layout, all or nothing.

    `workers` processes draw (0: this one); the files are the same for any number. Existing data of
    the same settings is kept, and False returned; other synthetic data is replaced only with
    `overwrite`. UserError: a value is impossible, or `root` has other content or cannot be written.
    """
    limits = [("seed", seed, 0), ("image size", image_size, MIN_IMAGE_SIZE)]
    limits += [(f"number of people of {name}", count, 1) for name, count in counts.items()]
    for name, value, least in limits:
        if value < least:
            raise UserError(f"the {name} must be at least {least}, not {value}")
    settings = {"format": FORMAT, "seed": seed, "image_size": image_size, "counts": dict(counts)}
    root = root.resolve()
    try:
        if root.exists() and any(root.iterdir()):
            file = root / "annot" / "synthetic.json"
            if not file.is_file():
                raise UserError(f"{root} is not a folder of synthetic people: choose another one")
            if read_json(file) == settings:
                return False
            if not overwrite:
                raise UserError(f"{root} has people of other settings: pass --overwrite")
        place = f".{root.name}.", root.parent  # on the same disk, where a rename is atomic
        with new_folder(root.parent), tempfile.TemporaryDirectory("", *place) as folder:
            new = Path(folder, "new")
            _write(new, settings, workers)
            if root.exists():
                shutil.rmtree(root)
            new.rename(root)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to {root} ({reason}): choose another folder") from error
    return True


def _write(root: Path, settings: dict[str, Any], workers: int) -> None:
    for folder in ("annot", "images"):
        (root / folder).mkdir(parents=True)
    (root / "annot" / "synthetic.json").write_text(json.dumps(settings))
    pool: Executor = ThreadPoolExecutor(1)
    if workers > 0:
        # Spawned, not forked: a fork copies locks whose threads do not exist in it.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,))
    with pool:
        for name, count in settings["counts"].items():
            write = partial(
                _write_person, root / "images", settings["seed"], settings["image_size"], name
            )
            people = pool.map(write, range(count), chunksize=CHUNK)
            records, boxes = zip(*people, strict=True)
            path, gt_path = set_paths(root, name)
            path.write_text(json.dumps(records))
            joints = np.array([record["joints"] for record in records])
            visible = np.array([record["joints_vis"] for record in records], dtype=bool)
            write_mat(gt_path, ground_truth(joints, visible, np.stack(boxes)))


def _write_person(
    folder: Path, seed: int, image_size: int, name: str, index: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Draw a person of a set and write the image; return the record and the head box."""
    image, record, box = sample_person(seed, name, index, image_size)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    (folder / record["image"]).write_bytes(encoded.tobytes())
    return record, box
