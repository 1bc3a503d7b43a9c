"""Crops of people with their joints: the samples that a loader batches."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from lib.dataset.augment import Augmentation, View, augment, vary_appearance
from lib.dataset.images import JPEG, MAX_PIXELS, ImageSource, decode_image
from lib.dataset.records import Annotation, Record
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import crop_image, reduced_matrix, reduction, transform_points
from lib.utils.errors import UserError

MAX_ATTEMPTS = 10  # people in a row whose images may be unreadable


@dataclass(eq=False)
class PoseDataset(Dataset):
    """Crops of people with their joints.

    The key of a sample is (epoch, index), or the index alone for epoch 0. It is a dict: `image`
    uint8 [h, w, 3], `joints` float32 [J, 2] in pixels of the crop, not rounded, `visible` float32
    [J] (1 also for joints outside the crop), `requested` (the index of the key), `index` (that of
    the person), and the person's `center` and `scale`, float64 [2], as annotated. With
    `augmentation`, large JPEG images are decoded at a reduced size; `smooth` as of `crop_image`,
    `unbiased` as of `crop_matrix`. UserError names an image that is unreadable or has more than
    `max_pixels`; with `replace_bad` the next readable person replaces it.
    """

    annotation: Annotation
    images: ImageSource
    skeleton: Skeleton
    image_size: tuple[int, int]
    _: KW_ONLY
    augmentation: Augmentation | None = None
    seed: int = 0
    color_rgb: bool = True
    replace_bad: bool = False
    smooth: bool = False
    unbiased: bool = True
    max_pixels: int = MAX_PIXELS

    @property
    def records(self) -> Sequence[Record]:
        """The annotated people."""
        return self.annotation.records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, requested = key if isinstance(key, tuple) else (0, key)
        last = requested + MAX_ATTEMPTS - 1 if self.replace_bad else requested
        for index in range(requested, last):
            try:
                return self._sample(epoch, index % len(self)) | {"requested": requested}
            except UserError:
                continue
        return self._sample(epoch, last % len(self)) | {"requested": requested}

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        record = self.records[index]
        generator = np.random.default_rng([self.seed, epoch, index])
        view = View(record.center, record.scale, unbiased=self.unbiased)
        joints, visible = record.joints, record.visible
        settings = self.augmentation
        if settings is not None:
            aspect_ratio = self.image_size[0] / self.image_size[1]
            view = augment(view, joints, visible, self.skeleton, settings, aspect_ratio, generator)
        matrix = view.matrix(self.image_size)
        image = self._crop(record.image, view, matrix)
        if settings is not None:
            image = vary_appearance(image, settings, generator)
        order = self.skeleton.flip_order if view.mirrored else slice(None)
        return {
            "image": image,
            "joints": transform_points(joints, matrix).astype(np.float32)[order],
            "visible": visible[order],
            "index": index,
            "center": record.center,
            "scale": record.scale,
        }

    def _crop(self, name: str, view: View, matrix: np.ndarray) -> np.ndarray:
        data = self.images.read(name)
        can_reduce = self.augmentation is not None and data.startswith(JPEG)
        factor = reduction(view.scale, self.image_size) if can_reduce else 1
        image = decode_image(data, name, factor, max_pixels=self.max_pixels)
        crop = crop_image(image, reduced_matrix(matrix, factor), self.image_size, self.smooth)
        # After cropping, since the crop is smaller than the image.
        return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) if self.color_rgb else crop
