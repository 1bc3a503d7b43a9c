"""Augmentation as the HRNet family does it: half body, scale, rotation, mirror.

Source of the facts: `JointsDataset` of leoxiaobin/deep-high-resolution-net.pytorch.
"""

from dataclasses import dataclass

import numpy as np

from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import PIXELS_PER_SCALE, crop_matrix, mirror_matrix

_ROTATED = 0.6  # share of the samples that are rotated
_MIRRORED = 0.5  # share of the samples that are mirrored
_HALF_BODY_MARGIN = 1.5  # box around the joints of half a body, relative to their extent
_SMALLEST_BOX = 2 / PIXELS_PER_SCALE  # two pixels: what a crop can still be made of


@dataclass(frozen=True)
class Augmentation:
    """How much is varied; `DATASET.SCALE_FACTOR` and its neighbours in the configuration."""

    scale_factor: float = 0.0  # standard deviation and limit of the relative change of size
    rotation_factor: float = 0.0  # standard deviation in degrees; the limit is twice this
    flip: bool = False
    half_body_probability: float = 0.0
    half_body_joints: int = 8  # half bodies only of people with more visible joints than this


@dataclass(frozen=True, eq=False)
class View:
    """One look at a person: the box, how it is turned, and whether it is mirrored."""

    center: np.ndarray  # [2], pixels
    scale: np.ndarray  # [2], in 200 pixels
    rotation: float = 0.0  # degrees
    mirrored: bool = False

    def matrix(self, size: tuple[int, int]) -> np.ndarray:
        """Return the map from picture to crop of `size` (w, h), float64 [2, 3].

        A mirrored view is the mirror of the crop, so that the picture need not be mirrored. To
        mirror the picture first would turn the other way; the angles are symmetric about 0.
        """
        matrix = crop_matrix(self.center, self.scale, self.rotation, size)
        return mirror_matrix(matrix, size[0]) if self.mirrored else matrix


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random numbers of one sample in one epoch, the same whoever asks and when."""
    return np.random.default_rng([seed, epoch, index])


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
    halved = generator.random() < settings.half_body_probability
    if halved and visible.sum() > settings.half_body_joints:
        view = half_body(view, joints, visible, skeleton, aspect_ratio, generator)
    size = 1 + _normal(generator, limit=1) * settings.scale_factor
    angle = _normal(generator, limit=2) * settings.rotation_factor
    rotated, mirrored = generator.random() < _ROTATED, generator.random() < _MIRRORED
    return View(
        center=view.center,
        scale=np.maximum(view.scale * size, _SMALLEST_BOX),
        rotation=angle if rotated else 0.0,
        mirrored=mirrored and settings.flip,
    )


def _normal(generator: np.random.Generator, limit: float) -> float:
    return max(-limit, min(limit, generator.standard_normal()))


def half_body(
    view: View,
    joints: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    aspect_ratio: float,
    generator: np.random.Generator,
) -> View:
    """Narrow `view` to the visible joints of the upper or the lower body.

    The upper body is meant in 69 % of the cases: the family asks whether a *normal* number is below
    0.5. A half with less than three visible joints gives way to the other; if there is none of at
    least two, the view stays.
    """
    in_upper = np.zeros(len(joints), dtype=bool)
    in_upper[list(skeleton.upper_body)] = True
    upper, lower = joints[(visible > 0) & in_upper], joints[(visible > 0) & ~in_upper]
    wants_upper = generator.standard_normal() < 0.5
    chosen = upper if (wants_upper and len(upper) > 2) or len(lower) <= 2 else lower
    if len(chosen) < 2:
        return view
    width, height = np.ptp(chosen, axis=0)
    width = max(width, height * aspect_ratio) * _HALF_BODY_MARGIN
    scale = np.array([width, width / aspect_ratio]) / PIXELS_PER_SCALE
    return View(center=chosen.mean(axis=0), scale=scale)
