"""The crop and its inverse: from the image to the input of the network, and back.

All maps are affine matrices [2, 3] on (x, y) in pixels, 0-based, with pixel centers at integer
coordinates. Sizes are (width, height).
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

PIXELS_PER_SCALE = 200  # MPII gives a person's size in units of 200 pixels
MARGIN = 1.25  # size of the crop by that of the person's box, in MPII and COCO
MAX_SOURCE_SIDE = 2**15 - 2  # pixels; OpenCV 4 warps no larger image
MAX_SOURCE_BYTES = 2**31 - 1  # OpenCV 5 crashes on larger images
MIN_SMOOTH_ZOOM = 0.75  # crop pixels per image pixel, below which crops need smoothing
MAX_COORDINATE = 1e6  # pixels; no image is as large


def crop_matrix(
    center: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    rotation: float,
    size: Sequence[int],
    inverse: bool = False,
    unbiased: bool = True,
) -> np.ndarray:
    """Return the similarity from image to crop, or from crop to image, float64 [2, 3].

    `center` (x, y) goes to the middle of the crop; the box is `scale` (width, height) times 200
    pixels, and its width alone sets the zoom, last pixel to last pixel (unbiased, as in DARK,
    Zhang et al. 2020). `rotation` in degrees turns about the center. `size` is the crop's. Not
    `unbiased`, as in HRNet: `center` goes to half of `size`, and the width of the box to that of
    the crop.
    """
    edge = int(unbiased)
    box_width = scale[0] * PIXELS_PER_SCALE - edge
    assert box_width > 0, f"a box of scale {scale[0]} is not wider than a pixel"
    zoom, angle = (size[0] - edge) / box_width, math.radians(rotation)
    source, target = np.asarray(center, np.float64), (np.asarray(size, np.float64) - edge) / 2
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


def box_error(box: Sequence[float] | np.ndarray, shape: Sequence[int]) -> str | None:
    """Return why a box (x, y, width, height) cannot be a person's, None if it can.

    `shape` is the image's, (height, width, ...).
    """
    x, y, width, height = map(float, box)
    if not all(abs(number) < MAX_COORDINATE for number in (x, y, width, height)):  # nan too
        return "has a number that is not finite or beyond any image"
    if width < 1 or height < 1:
        return "is smaller than a pixel; boxes are x, y, width, height in pixels"
    if x >= shape[1] or y >= shape[0] or x + width <= 0 or y + height <= 0:
        return f"is outside the image of {shape[1]}×{shape[0]} pixels"
    return None


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


def crop_image(
    image: np.ndarray, matrix: np.ndarray, size: Sequence[int], smooth: bool = False
) -> np.ndarray:
    """Cut the crop of `size` (w, h) out of `image` uint8 [H, W, 3]; uint8 [h, w, 3].

    Bilinear; black outside the image. An image too large for OpenCV is subsampled. `smooth`
    averages the pixels of an image that is much larger than the crop, instead of skipping some.
    """
    if smooth:
        image, matrix = _shrink(image, matrix, size)
    side, size_ratio = max(image.shape[:2]) / MAX_SOURCE_SIDE, image.nbytes / MAX_SOURCE_BYTES
    step = math.ceil(max(side, math.sqrt(size_ratio)))
    if step > 1:
        image, matrix = np.ascontiguousarray(image[::step, ::step]), matrix * [step, step, 1]
    return cv2.warpAffine(image, matrix, (int(size[0]), int(size[1])), flags=cv2.INTER_LINEAR)


def _shrink(
    image: np.ndarray, matrix: np.ndarray, size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the part that a crop shows, about as fine as the crop, and its matrix to the crop."""
    zoom = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if zoom >= MIN_SMOOTH_ZOOM:
        return image, matrix
    corners = np.array([(x, y) for x in (0, size[0]) for y in (0, size[1])])
    corners = transform_points(corners, cv2.invertAffineTransform(matrix))
    reach = 2 / zoom  # pixels that a pixel at the crop's border is made of
    limit = np.array(image.shape[1::-1])
    left, top = np.clip(np.floor(corners.min(axis=0) - reach), 0, limit - 1).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0) + reach), [left + 1, top + 1], limit)
    part = image[top : int(bottom), left : int(right)]
    height, width = part.shape[:2]
    new_size = max(1, round(width * zoom)), max(1, round(height * zoom))
    x, y = width / new_size[0], height / new_size[1]
    to_image = np.array([[x, 0, left + (x - 1) / 2], [0, y, top + (y - 1) / 2], [0, 0, 1]])
    return cv2.resize(part, new_size, interpolation=cv2.INTER_AREA), matrix @ to_image


def rescale_joints(
    joints: Tensor, old_size: Sequence[int], new_size: Sequence[int], unbiased: bool = True
) -> Tensor:
    """Convert `joints` [..., 2] from the pixels of a crop or heatmap to those of another size.

    Not rounded. Equivalent to `crop_matrix` with the other size: the middle stays the middle, and
    the widths set the zoom.
    """
    edge = int(unbiased)
    zoom = (new_size[0] - edge) / (old_size[0] - edge)
    shift = (new_size[1] - edge) / 2 - (old_size[1] - edge) / 2 * zoom
    return torch.stack((joints[..., 0] * zoom, joints[..., 1] * zoom + shift), dim=-1)
