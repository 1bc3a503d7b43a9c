"""Augmentation: half body, scale, rotation and flip as in the HRNet family; colours and cutout.

Source: `JointsDataset` of leoxiaobin/deep-high-resolution-net.pytorch.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import PIXELS_PER_SCALE, crop_matrix

ROTATION_PROBABILITY = 0.6
FLIP_PROBABILITY = 0.5
HALF_BODY_MARGIN = 1.5  # box around the joints of half a body, relative to their extent
MIN_SCALE = 2 / PIXELS_PER_SCALE  # two pixels


@dataclass(frozen=True)
class Augmentation:
    """Strength of the augmentation; `DATASET.SCALE_FACTOR` and so on in the configuration."""

    scale_factor: float = 0.0  # standard deviation and limit of the relative change of size
    rotation_factor: float = 0.0  # standard deviation in degrees; the limit is twice this
    flip: bool = False
    half_body_probability: float = 0.0
    half_body_joints: int = 8  # half bodies only of people with more visible joints than this
    color: float = 0.0  # largest relative change of brightness, contrast and saturation
    cutout: float = 0.0  # probability that a square is cut out


@dataclass(frozen=True, eq=False)
class View:
    """What is cropped of a person: the box, its rotation, and whether the crop is mirrored."""

    center: np.ndarray  # [2], pixels
    scale: np.ndarray  # [2], in 200 pixels
    rotation: float = 0.0  # degrees
    mirrored: bool = False
    unbiased: bool = True  # as of `crop_matrix`

    def matrix(self, size: tuple[int, int]) -> np.ndarray:
        """Return the map from image to crop of `size` (w, h), float64 [2, 3].

        The crop is mirrored, not the image as in the family. That inverts the rotation, which does
        not matter, since angles are symmetric about 0.
        """
        unbiased = self.unbiased
        matrix = crop_matrix(self.center, self.scale, self.rotation, size, unbiased=unbiased)
        if self.mirrored:  # x -> width - 1 - x, so that the center stays
            matrix = matrix * [[-1], [1]] + [[0, 0, size[0] - unbiased], [0, 0, 0]]
        return matrix


def augment(
    view: View,
    joints: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    settings: Augmentation,
    aspect_ratio: float,
    generator: np.random.Generator,
) -> View:
    """Vary `view` of a person with `joints` [J, 2] in pixels, of which `visible` [J] are annotated.

    `aspect_ratio` is the crop's width by its height. Scale changes by a normal factor clipped to
    one deviation, rotation by a normal angle clipped to two.
    """
    halve = generator.random() < settings.half_body_probability
    if halve and visible.sum() > settings.half_body_joints:
        view = half_body(view, joints, visible, skeleton, aspect_ratio, generator)
    factor = 1 + np.clip(generator.standard_normal(), -1, 1) * settings.scale_factor
    angle = float(np.clip(generator.standard_normal(), -2, 2)) * settings.rotation_factor
    rotate = generator.random() < ROTATION_PROBABILITY
    mirror = generator.random() < FLIP_PROBABILITY
    return replace(
        view,
        scale=np.maximum(view.scale * factor, MIN_SCALE),
        rotation=angle if rotate else 0.0,
        mirrored=mirror and settings.flip,
    )


def half_body(
    view: View,
    joints: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    aspect_ratio: float,
    generator: np.random.Generator,
) -> View:
    """Narrow `view` to the visible joints of the upper or the lower body.

    The upper body is preferred in 69 % of the cases: the family tests whether a *normal* number is
    below 0.5. A half with fewer than three visible joints is replaced by the other; if that has
    fewer than two, the view stays the same.
    """
    in_upper = np.isin(np.arange(len(joints)), skeleton.upper_body)
    upper, lower = joints[(visible > 0) & in_upper], joints[(visible > 0) & ~in_upper]
    prefer_upper = generator.standard_normal() < 0.5
    chosen = upper if (prefer_upper and len(upper) > 2) or len(lower) <= 2 else lower
    if len(chosen) < 2:
        return view
    width, height = np.ptp(chosen, axis=0)
    width = max(width, height * aspect_ratio) * HALF_BODY_MARGIN
    scale = np.array([width, width / aspect_ratio]) / PIXELS_PER_SCALE
    return replace(view, center=chosen.mean(axis=0), scale=scale)


def vary_appearance(
    image: np.ndarray, settings: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """Apply colour jitter and cutout to a copy of a crop, uint8 [h, w, 3]."""
    if settings.color > 0:
        image = _jitter_color(image, settings.color, generator)
    if settings.cutout > 0 and generator.random() < settings.cutout:
        image = _cut_out(image, generator)
    return image


def _jitter_color(image: np.ndarray, limit: float, generator: np.random.Generator) -> np.ndarray:
    """Multiply brightness, contrast and saturation by 1 - limit to 1 + limit, in one linear map.

    Saturation scales the distance from grey, contrast the distance from the mean grey.
    """
    brightness, contrast, saturation = generator.uniform(1 - limit, 1 + limit, size=3)
    gain = brightness * contrast
    # out = gain · (saturation · c + (1 - saturation) · grey) + brightness · (1 - contrast) · mean
    matrix = np.full((3, 4), gain * (1 - saturation) / 3)
    matrix[:, :3] += np.eye(3) * gain * saturation
    matrix[:, 3] = brightness * (1 - contrast) * image.mean()
    return cv2.transform(image, matrix)


def _cut_out(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Fill a square, 0.2 to 0.4 of the width, with the mean colour (DeVries and Taylor 2017)."""
    height, width = image.shape[:2]
    side = max(1, round(width * generator.uniform(0.2, 0.4)))
    left = int(generator.integers(1 - side, width))
    top = int(generator.integers(1 - side, height))
    image = image.copy()
    mean = image.mean(axis=(0, 1)).round()
    image[max(0, top) : top + side, max(0, left) : left + side] = mean
    return image
