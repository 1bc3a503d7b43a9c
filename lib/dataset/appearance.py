"""Augmentation of what a crop looks like: colour, and a hole cut out of it."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Appearance:
    """How much is varied; `DATASET.COLOR` and `DATASET.CUTOUT` in the configuration."""

    color: float = 0.0  # largest relative change of brightness, contrast and saturation
    cutout: float = 0.0  # share of the samples that lose a square


def vary_appearance(
    image: np.ndarray, settings: Appearance, generator: np.random.Generator
) -> np.ndarray:
    """Vary a crop, uint8 [h, w, 3], which is left as it is; with all settings 0 it is returned."""
    if settings.color > 0:
        image = _vary_color(image, settings.color, generator)
    if settings.cutout > 0 and generator.random() < settings.cutout:
        image = _cut_out(image, generator)
    return image


def _vary_color(image: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """Multiply brightness, contrast and saturation by 1 - most to 1 + most, in one linear map.

    Colours keep their distance from grey (saturation), values theirs from the mean grey (contrast).
    """
    brightness, contrast, saturation = generator.uniform(1 - most, 1 + most, size=3)
    mean = image.mean()
    gain = brightness * contrast
    # out = gain · (saturation · c + (1 - saturation) · grey) + brightness · (1 - contrast) · mean
    matrix = np.full((3, 4), gain * (1 - saturation) / 3)
    matrix[:, :3] += np.eye(3) * gain * saturation
    matrix[:, 3] = brightness * (1 - contrast) * mean
    return cv2.transform(image, matrix)


def _cut_out(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Fill a square, a fifth to two fifths as wide as the crop, with the mean colour.

    Cutout: DeVries and Taylor 2017.
    """
    height, width = image.shape[:2]
    side = max(1, round(width * generator.uniform(0.2, 0.4)))
    left = int(generator.integers(1 - side, width))
    top = int(generator.integers(1 - side, height))
    holed = image.copy()
    hole = holed[max(0, top) : top + side, max(0, left) : left + side]
    hole[...] = image.mean(axis=(0, 1)).round()
    return holed
