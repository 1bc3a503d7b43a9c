"""Synthetic people in MPII's layout: articulated, dressed, partly hidden, drawn from a seed.

They are to a pose network what a wind tunnel is to a wing: small, cheap and always at hand. Sizes,
boxes and head boxes follow MPII's, so that PCKh is as strict on them as it is there. A person's
left and right can be told apart only by what is seen: the face or the hair, which way the feet
point, what lies in front of what, a breast pocket and a watch on the left.
"""

import json
import math
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from lib.dataset.release.prepare import ground_truth
from lib.dataset.synthetic_drawing import draw_scene
from lib.dataset.synthetic_pose import Pose, sample_pose
from lib.utils.errors import UserError
from lib.utils.mat import write_mat

FORMAT = 2  # of what a seed draws; rises whenever the same seed draws another picture
MIN_IMAGE_SIZE = 48  # below, a head is four pixels wide
JPEG_QUALITY = 92
CHUNK = 50  # people a worker draws at a time
HEAD_ASPECT = 0.75  # of a head box about an upright head, width to height


def sample_person(
    seed: int, name: str, index: int, image_size: int
) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    """Draw person `index` of the set `name`; it depends on these four arguments and nothing else.

    Returns the picture (uint8 [S, S, 3], BGR), its record as in MPII's JSON (1-based pixels), and
    its head box [2, 2] (upper left and lower right corner, 1-based pixels). A joint outside the
    picture has joints_vis 0 and stands at (-1, -1), as in MPII's JSON.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), index])
    pose = sample_pose(rng)
    size = image_size * rng.uniform(0.1, 0.148)
    origin = _place(rng, pose, size, image_size)
    image = draw_scene(rng, pose, origin, size, image_size)

    joints = pose.joints[:, :2] * size + origin
    visible = ((joints >= 0) & (joints <= image_size - 1)).all(axis=1)
    # MPII's scale is 8/200 of a head's size, and a head's size 3/4 of what is seen of its length.
    box_scale = 8 / 200 * 0.75 * (0.965 * size) * rng.lognormal(0, 0.06)
    # Its center is that of head, trunk and legs, as far as they are seen.
    inside = joints[:10][visible[:10]]
    center = (inside.min(axis=0) + inside.max(axis=0)) / 2
    center += rng.normal(0, 0.025, 2) * 250 * box_scale
    # The reader puts the box 15·scale lower and makes it 1.25 times as large.
    center[1] -= 15 * box_scale
    record = {
        "image": f"{name}_{index:06d}.jpg",
        "center": (center + 1).round(2).tolist(),
        "scale": round(float(box_scale), 6),
        "joints": np.where(visible[:, None], joints + 1, -1).round(4).tolist(),
        "joints_vis": visible.astype(int).tolist(),
    }
    return image, record, head_box(joints[8], joints[9], size) + 1


def _place(rng: Generator, pose: Pose, size: float, image_size: int) -> np.ndarray:
    """Where the pelvis lies (x, y, pixels): about the middle, with the head inside the picture."""
    joints = pose.joints[:, :2] * size
    middle = (joints.min(axis=0) + joints.max(axis=0)) / 2
    origin = image_size * (0.5 + rng.uniform(-0.18, 0.18, 2)) - middle
    low, high = head_box(joints[8], joints[9], size)
    return np.clip(origin, -low, image_size - 1 - high)


def head_box(neck: np.ndarray, top: np.ndarray, size: float) -> np.ndarray:
    """Upright rectangle about a head, [2, 2] corners, in the pixels of upper neck and head top.

    It is the bounding box of an ellipse as long as the head and 3/4 as wide; whatever the head's
    angle, its diagonal is 5/4 of the length, as in MPII. A head seen from above or below (shorter
    than 0.8 `size`, its true length) is taken as 0.8 `size` long.
    """
    along = (top - neck) / max(float(np.linalg.norm(top - neck)), 1e-9)
    length = max(float(np.linalg.norm(top - neck)), 0.8 * size)
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
    """Write `counts` people (by name of the set) under `root` in MPII's layout.

    Files: images/<set>_<index>.jpg, annot/<set>.json, annot/gt_<set>.mat and annot/synthetic.json
    with the settings. `workers` processes draw (0: this one); the files are the same for any
    number. All is written beside `root` and renamed at the end. Data with the same settings is
    left alone and False returned. UserError: other data is there and `overwrite` is not set,
    `root` holds something that this function did not write, or it cannot be written.
    """
    settings = _check_settings(counts, seed, image_size)
    if workers < 0:
        raise UserError(f"{workers} workers cannot draw: take 0 (this process) or more")
    root = root.resolve()
    try:
        if _is_there(root, settings, overwrite):
            return False
        root.parent.mkdir(parents=True, exist_ok=True)
        # Beside `root`, so on the same disk, where a rename is one step.
        with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as folder:
            new, old = Path(folder, "new"), Path(folder, "old")
            _write(new, settings, workers)
            if root.exists():
                root.rename(old)
            new.rename(root)
    except OSError as error:
        raise UserError(
            f"cannot write synthetic people to {root} ({error.strerror or error}): "
            "choose another folder or make room"
        ) from error
    return True


def _check_settings(counts: Mapping[str, int], seed: int, image_size: int) -> dict[str, Any]:
    """Return what annot/synthetic.json says; UserError names the value that cannot be."""
    for name, count in counts.items():
        if not name.isidentifier():
            raise UserError(f"a set cannot be called {name!r}: use letters, digits and _")
        if count < 1:
            raise UserError(f"the set {name} cannot have {count} people: take at least 1")
    if seed < 0:
        raise UserError(f"the seed cannot be {seed}: take 0 or more")
    if image_size < MIN_IMAGE_SIZE:
        raise UserError(f"pictures cannot be {image_size} pixels: take at least {MIN_IMAGE_SIZE}")
    return {"format": FORMAT, "seed": seed, "image_size": image_size, "counts": dict(counts)}


def _is_there(root: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Whether `root` holds people of these settings; UserError where it may not be replaced."""
    if root.is_file():
        raise UserError(f"{root} is a file: choose another folder")
    if not root.is_dir() or not any(root.iterdir()):
        return False
    try:
        found = json.loads((root / "annot" / "synthetic.json").read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{root} holds something other than synthetic people: choose another folder"
        ) from None
    pictures = sum(1 for _ in (root / "images").glob("*.jpg"))
    if found == settings and pictures == sum(settings["counts"].values()):
        return True
    if not overwrite:
        raise UserError(
            f"{root} holds synthetic people of other settings or in part: "
            "choose another folder or pass --overwrite"
        )
    return False


def _write(folder: Path, settings: dict[str, Any], workers: int) -> None:
    """Make and fill a folder."""
    (folder / "annot").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "annot" / "synthetic.json").write_text(json.dumps(settings))
    counts = settings["counts"]
    with ExitStack() as stack:
        each: Callable[..., Iterable[Any]] = map
        if workers:
            # Spawned, not forked: a fork copies the locks of threads that do not live on in it.
            pool = ProcessPoolExecutor(
                min(workers, math.ceil(max(counts.values()) / CHUNK)),
                mp_context=get_context("spawn"),
                initializer=cv2.setNumThreads,
                initargs=(1,),
            )
            each = partial(stack.enter_context(pool).map, chunksize=CHUNK)
        for name, count in counts.items():
            write = partial(
                _write_person, folder / "images", settings["seed"], settings["image_size"], name
            )
            records, boxes = zip(*each(write, range(count)), strict=True)
            _write_annotation(folder / "annot", name, records, boxes)


def _write_annotation(
    folder: Path, name: str, records: Sequence[dict[str, Any]], boxes: Sequence[np.ndarray]
) -> None:
    (folder / f"{name}.json").write_text(json.dumps(records))
    joints = np.array([record["joints"] for record in records])
    visible = np.array([record["joints_vis"] for record in records], dtype=bool)
    write_mat(folder / f"gt_{name}.mat", ground_truth(joints, visible, np.stack(boxes)))


def _write_person(
    folder: Path, seed: int, image_size: int, name: str, index: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Draw and write a person of a set; return the record and the head box."""
    image, record, box = sample_person(seed, name, index, image_size)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    (folder / record["image"]).write_bytes(encoded.tobytes())
    return record, box
