"""Augmentation of a crop's appearance: colour jitter and cutout."""

import cv2
import numpy as np

from lib.dataset.augment import Augmentation


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
