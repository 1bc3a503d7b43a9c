"""The crop and its inverse: from the image to the input of the network, and back.

All maps are affine matrices [2, 3] on (x, y) in pixels, 0-based, with pixel centers at integer
coordinates. Sizes are (width, height).
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
import torch

PIXELS_PER_SCALE = 200  # MPII gives a person's size in units of 200 pixels
MARGIN = 1.25  # size of the crop by that of the person's box, in MPII and COCO
MAX_SOURCE_SIDE = 2**15 - 2  # pixels; OpenCV 4 warps no larger image
MAX_BOX_SIDE = 1e6  # pixels; no image is as large

Points = TypeVar("Points", np.ndarray, torch.Tensor)


def crop_matrix(
    center: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    rotation: float,
    size: Sequence[int],
    inverse: bool = False,
) -> np.ndarray:
    """Return the similarity from image to crop, or from crop to image, float64 [2, 3].

    `center` (x, y) goes to the middle of the crop; the box is `scale` (width, height) times 200
    pixels, and its width alone sets the zoom, last pixel to last pixel (unbiased, as in DARK,
    Zhang et al. 2020). `rotation` in degrees turns about the center. `size` is the crop's.
    """
    box_width = scale[0] * PIXELS_PER_SCALE - 1
    assert box_width > 0, f"a box of scale {scale[0]} is not wider than a pixel"
    zoom, angle = (size[0] - 1) / box_width, math.radians(rotation)
    source, target = np.asarray(center, np.float64), (np.asarray(size, np.float64) - 1) / 2
    if inverse:
        source, target, zoom, angle = target, source, 1 / zoom, -angle
    cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
    columns = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([*columns, target - columns[0] * source[0] - columns[1] * source[1]])


def box_to_center_scale(
    box: Sequence[float] | np.ndarray, size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return center and scale, float64 [2] each, of the crop for a box (x, y, width, height).

    The box covers the pixels x … x + width - 1, so its middle is x + (width - 1) / 2. The shorter
    side grows to the aspect ratio of the crop's `size`, then both sides by MARGIN.
    """
    x, y, width, height = map(float, box)
    center = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
    aspect_ratio = size[0] / size[1]
    width = max(width, height * aspect_ratio)
    return center, np.array([width, width / aspect_ratio]) * (MARGIN / PIXELS_PER_SCALE)


def center_scale_to_box(
    center: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    size: Sequence[int],
) -> np.ndarray:
    """Return the box (x, y, width, height), float64 [4]: the inverse of `box_to_center_scale`.

    The height of `scale` has no effect, as in `crop_matrix`.
    """
    width = scale[0] * PIXELS_PER_SCALE / MARGIN
    height = width * size[1] / size[0]
    return np.array([center[0] - (width - 1) / 2, center[1] - (height - 1) / 2, width, height])


def box_error(box: Sequence[float] | np.ndarray, shape: Sequence[int]) -> str | None:
    """Return why a box (x, y, width, height) cannot be a person's, None if it can.

    `shape` is the image's, (height, width, ...).
    """
    x, y, width, height = map(float, box)
    if not all(map(math.isfinite, (x, y, width, height))):
        return "has numbers that are not finite"
    if width <= 0 or height <= 0:
        return "has no size"
    if width < 1 or height < 1:
        return "is smaller than a pixel; boxes are x, y, width, height in pixels"
    if max(width, height) > MAX_BOX_SIDE:
        return "is larger than any image"
    if x >= shape[1] or y >= shape[0] or x + width <= 0 or y + height <= 0:
        return f"is outside the image of {shape[1]}×{shape[0]} pixels"
    return None


def mirror_matrix(matrix: np.ndarray, width: int) -> np.ndarray:
    """Return `matrix` followed by the mirror x → width - 1 - x of a crop of that width."""
    mirrored = matrix.copy()
    mirrored[0] = -matrix[0]
    mirrored[0, 2] += width - 1
    return mirrored


def reduction(scale: Sequence[float] | np.ndarray, size: Sequence[int]) -> int:
    """Return the largest factor (1, 2, 4 or 8) of shrinking the image that the crop permits."""
    ratio = (scale[0] * PIXELS_PER_SCALE - 1) / (size[0] - 1)
    return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor <= ratio)


def reduced_matrix(matrix: np.ndarray, factor: int) -> np.ndarray:
    """Return the matrix for an image shrunk by `factor` that corresponds to `matrix`.

    Pixel i of the shrunk image is the mean of pixels factor·i … factor·i + factor - 1.
    """
    offset = (factor - 1) / 2
    return matrix @ np.array([[factor, 0, offset], [0, factor, offset], [0, 0, 1]])


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply `matrix` [2, 3] to `points` [..., 2]; float64 [..., 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def crop_image(image: np.ndarray, matrix: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Cut the crop of `size` (w, h) out of `image` uint8 [H, W, 3]; uint8 [h, w, 3].

    Bilinear; black outside the image.
    """
    if max(image.shape[:2]) > MAX_SOURCE_SIDE:
        image, matrix = _cut_out_source(image, matrix, size)
    return cv2.warpAffine(image, matrix, (int(size[0]), int(size[1])), flags=cv2.INTER_LINEAR)


def _cut_out_source(
    image: np.ndarray, matrix: np.ndarray, size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the region of a huge image that a crop covers, subsampled if huge, and its map."""
    corners = np.array([[0, 0], [size[0] - 1, 0], [0, size[1] - 1], np.subtract(size, 1)])
    covered = transform_points(corners, cv2.invertAffineTransform(matrix))
    limit = np.array(image.shape[1::-1])
    low = (np.floor(covered.min(axis=0)) - 2).clip(0, limit - 1).astype(int)
    high = (np.ceil(covered.max(axis=0)) + 3).clip(low + 1, limit).astype(int)
    step = math.ceil((high - low).max() / MAX_SOURCE_SIDE)
    source = np.ascontiguousarray(image[low[1] : high[1] : step, low[0] : high[0] : step])
    return source, matrix @ np.array([[step, 0, low[0]], [0, step, low[1]], [0, 0, 1]])


def crop_to_heatmap(
    joints: Points, image_size: Sequence[int], heatmap_size: Sequence[int]
) -> Points:
    """Convert `joints` [..., 2] from crop pixels to heatmap cells, not rounded; array or tensor.

    Equivalent to `crop_matrix` with the heatmap's size: middle to middle, the widths set the zoom.
    """
    zoom = (heatmap_size[0] - 1) / (image_size[0] - 1)
    shift = (heatmap_size[1] - 1) / 2 - (image_size[1] - 1) / 2 * zoom
    stack = torch.stack if isinstance(joints, torch.Tensor) else np.stack
    return stack((joints[..., 0] * zoom, joints[..., 1] * zoom + shift), -1)


def heatmap_to_crop(
    joints: Points, image_size: Sequence[int], heatmap_size: Sequence[int]
) -> Points:
    """Convert `joints` [..., 2] from heatmap cells to crop pixels; array or tensor."""
    return crop_to_heatmap(joints, heatmap_size, image_size)
