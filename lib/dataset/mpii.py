"""People in MPII's layout: `annot/<set>.json`, `annot/gt_<set>.mat`, `images/` or `images.zip`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from lib.dataset.appearance import Appearance, vary_appearance
from lib.dataset.augment import Augmentation, View, augment, sample_generator
from lib.dataset.images import ImageFolder, ImageSource, ImageZip, decode_image, is_jpeg
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import (
    PIXELS_PER_SCALE,
    crop_image,
    reduced_matrix,
    reduction,
    transform_points,
)
from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import brief, can_be_path

_MOST_TRIES = 10  # people in a row whose pictures may be unreadable
FARTHEST = 1e6  # pixels; no picture is as large
LOWERED = 15  # pixels at scale 1, by which boxes lie below MPII's positions


@dataclass(frozen=True, eq=False)
class Record:
    """One annotated person; coordinates are 0-based pixels of the picture."""

    image: str  # name inside `images/` or `images.zip`
    center: np.ndarray  # float64 [2]
    scale: np.ndarray  # float64 [2], width and height of the box in 200 pixels
    joints: np.ndarray  # float32 [J, 2]
    visible: np.ndarray  # float32 [J], 1 where the joint is annotated, else 0


def read_records(path: str | Path, num_joints: int, with_joints: bool = True) -> list[Record]:
    """Read an annotation file of MPII's layout.

    As the family does, the box moves down by 15·scale pixels and grows by a quarter, so that feet
    are not cut off; MPII counts pixels from 1. `with_joints` False leaves all joints invisible, for
    sets without annotation. UserError names the file and the record that is wrong.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: the annotation should be a list of people that is not empty")
    return [
        _read_record(entry, num_joints, with_joints, f"{path}: record {index}")
        for index, entry in enumerate(entries)
    ]


def _read_record(entry: Any, num_joints: int, with_joints: bool, where: str) -> Record:
    if not isinstance(entry, dict):
        raise UserError(f"{where} should be an object with `image`, `center`, `scale`, `joints`")
    image = entry.get("image")
    if not isinstance(image, str) or not image or not can_be_path(image):
        raise UserError(f"{where}: `image` should be a file name, it is {brief(repr(image))}")
    center = _read_numbers(entry, "center", (2,), where)
    scale = _read_numbers(entry, "scale", (), where)
    if center[0] == -1 or 1.25 * scale * PIXELS_PER_SCALE <= 1:  # MPII's sign of a missing center
        raise UserError(f"{where}: no box: center {center.tolist()}, scale {scale}")
    joints, visible = np.zeros((num_joints, 2)), np.zeros(num_joints)
    if with_joints:
        joints = _read_numbers(entry, "joints", (num_joints, 2), where) - 1
        visible = _read_numbers(entry, "joints_vis", (num_joints,), where)
    return Record(
        image=image,
        center=center + np.array([0, LOWERED * scale]) - 1,
        scale=np.full(2, 1.25 * scale),
        joints=joints.astype(np.float32),
        visible=(visible > 0).astype(np.float32),
    )


def _read_numbers(entry: dict, key: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    if key not in entry:
        raise UserError(f"{where}: `{key}` is missing")
    try:
        numbers = np.asarray(entry[key], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: `{key}` should hold numbers in the shape {shape}") from None
    if numbers.shape != shape:
        raise UserError(f"{where}: `{key}` has the shape {numbers.shape}, it should have {shape}")
    if not (np.abs(numbers) < FARTHEST).all():  # nan is not either
        raise UserError(
            f"{where}: `{key}` holds a number that is not finite or beyond all pictures"
        )
    return numbers


def fits_its_box(record: Record) -> bool:
    """Tell whether the visible joints lie about the box's center (the family's `select_data`).

    The distance of their mean from the center, seen as a Gaussian over the box's size, has to be
    the smaller the more joints are visible.
    """
    count = record.visible.sum()
    if count == 0:
        return False
    mean = record.joints[record.visible > 0].mean(axis=0, dtype=np.float64)
    area = record.scale.prod() * PIXELS_PER_SCALE**2
    similarity = np.exp(-np.square(mean - record.center).sum() / (2 * 0.2**2 * area))
    return bool(similarity > 0.45 + 0.2 / 16 * (count - 1))


class PoseDataset(Dataset):
    """Crops of people with their joints.

    A sample is asked for by (epoch, index), or by index alone for epoch 0, and is a dict:
    `image` uint8 [h, w, 3], `joints` float32 [J, 2] in pixels of the crop, not rounded, `visible`
    float32 [J] (1 also for joints that fell out of the crop), `index`, and the person's `center`
    and `scale`, float64 [2], as annotated. Without `augmentation` pictures are decoded in full;
    with it no finer than the crop asks. Errors: UserError names the image; with `replace_bad` the
    next person with a readable one comes instead, whose `index` then differs from `asked`.
    """

    def __init__(
        self,
        records: Sequence[Record],
        images: ImageSource,
        skeleton: Skeleton,
        image_size: tuple[int, int],
        *,
        augmentation: Augmentation | None = None,
        appearance: Appearance | None = None,
        seed: int = 0,
        color_rgb: bool = True,
        replace_bad: bool = False,
        gt_path: Path | None = None,
    ) -> None:
        self.records = records
        self.images = images
        self.skeleton = skeleton
        self.image_size = image_size
        self.augmentation = augmentation
        self.appearance = appearance
        self.seed = seed
        self.color_rgb = color_rgb
        self.replace_bad = replace_bad
        self.gt_path = gt_path  # what predictions are scored against, where there is such a file
        self._flip_order = skeleton.flip_order

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, asked = key if isinstance(key, tuple) else (0, key)
        tries = min(len(self), _MOST_TRIES) if self.replace_bad else 1
        for index in range(asked, asked + tries):
            try:
                return self._sample(epoch, index % len(self)) | {"asked": asked}
            except UserError:
                if index == asked + tries - 1:
                    raise
        raise AssertionError("there is always a first try")

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        record = self.records[index]
        generator = sample_generator(self.seed, epoch, index)
        view = self._view(record, generator)
        matrix = view.matrix(self.image_size)
        joints, visible = transform_points(record.joints, matrix), record.visible
        if view.mirrored:
            joints, visible = joints[self._flip_order], visible[self._flip_order]
        image = self._crop(record.image, view, matrix)
        if self.appearance is not None:
            image = vary_appearance(image, self.appearance, generator)
        return {
            "image": image,
            "joints": joints.astype(np.float32),
            "visible": visible,
            "index": index,
            "center": record.center,
            "scale": record.scale,
        }

    def _view(self, record: Record, generator: np.random.Generator) -> View:
        view = View(record.center, record.scale)
        if self.augmentation is None:
            return view
        return augment(
            view,
            record.joints,
            record.visible,
            self.skeleton,
            self.augmentation,
            self.image_size[0] / self.image_size[1],
            generator,
        )

    def _crop(self, name: str, view: View, matrix: np.ndarray) -> np.ndarray:
        data = self.images.read(name)
        reducible = self.augmentation is not None and is_jpeg(data)
        factor = reduction(view.scale, self.image_size) if reducible else 1
        image = decode_image(data, name, factor)
        crop = crop_image(image, reduced_matrix(matrix, factor), self.image_size)
        # Turned here, not when decoding: the crop is the smaller picture.
        return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) if self.color_rgb else crop


def open_images(root: str | Path, data_format: str) -> ImageSource:
    """Return the pictures under `root`: `zip` reads `images.zip`, `jpg` the folder `images`."""
    if data_format == "zip":
        return ImageZip(Path(root) / "images.zip")
    return ImageFolder(Path(root) / "images")


def find_gt(root: str | Path, image_set: str) -> Path | None:
    """Return the `gt_<set>.mat` that scores are made with; None for `test` or if it is absent."""
    path = Path(root) / "annot" / f"gt_{image_set}.mat"
    return path if image_set != "test" and path.is_file() else None
