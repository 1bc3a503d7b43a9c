"""The crop and its inverse: from the picture to what the network sees, and back.

All maps are affine matrices [2, 3] that act on (x, y) in pixels, 0-based, where a pixel's centre
has whole coordinates. Sizes are (width, height).
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
import torch

_LONGEST_SOURCE = 2**15 - 2  # pixels; OpenCV 4 warps no larger picture
PIXELS_PER_SCALE = 200  # MPII gives a person's size in units of 200 pixels
MARGIN = 1.25  # the crop over a person's box, in MPII and COCO alike, so that no limb is cut off
_LARGEST_SIDE = 1e6  # pixels; no picture is as large

Points = TypeVar("Points", np.ndarray, torch.Tensor)


def crop_matrix(
    center: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    rotation: float,
    size: Sequence[int],
    inverse: bool = False,
) -> np.ndarray:
    """Return the similarity from picture to crop, or from crop to picture, float64 [2, 3].

    `center` (x, y) goes to the middle of the crop; the box is `scale` (width, height) times 200
    pixels, and its width alone sets the zoom, last pixel to last pixel (unbiased, as in DARK,
    Zhang et al. 2020). `rotation` in degrees turns about the center. `size` is the crop's.
    """
    box_width = scale[0] * PIXELS_PER_SCALE - 1
    assert box_width > 0, f"a box of scale {scale[0]} is not wider than a pixel"
    zoom = (size[0] - 1) / box_width
    angle = math.radians(rotation)
    (x, y), middle_x, middle_y = center, (size[0] - 1) / 2, (size[1] - 1) / 2
    if inverse:
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        return np.array(
            [
                [cos, -sin, x - cos * middle_x + sin * middle_y],
                [sin, cos, y - sin * middle_x - cos * middle_y],
            ]
        )
    cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
    return np.array(
        [[cos, sin, middle_x - cos * x - sin * y], [-sin, cos, middle_y + sin * x - cos * y]]
    )


def box_to_view(
    box: Sequence[float] | np.ndarray, size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what to crop for a box (x, y, width, height): center and scale, float64 [2] each.

    The box covers the pixels x … x + width - 1, so its middle is x + (width - 1) / 2. The side that
    is too short for the shape of the crop's `size` grows, then both by MARGIN.
    """
    x, y, width, height = map(float, box)
    center = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
    shape = size[0] / size[1]
    width = max(width, height * shape)
    return center, np.array([width, width / shape]) * (MARGIN / PIXELS_PER_SCALE)


def view_to_box(
    center: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    size: Sequence[int],
) -> np.ndarray:
    """Undo `box_to_view`: the box (x, y, width, height), float64 [4], whose crop that is.

    Of a record's center and scale too, whose width alone counts, as in `crop_matrix`.
    """
    width = scale[0] * PIXELS_PER_SCALE / MARGIN
    height = width * size[1] / size[0]
    return np.array([center[0] - (width - 1) / 2, center[1] - (height - 1) / 2, width, height])


def fault_of_box(box: Sequence[float] | np.ndarray, shape: Sequence[int]) -> str | None:
    """Say what keeps a box (x, y, width, height) from being a person's; None where nothing does.

    `shape` is the picture's, (height, width, ...).
    """
    x, y, width, height = map(float, box)
    if not all(map(math.isfinite, (x, y, width, height))):
        return "is not of finite numbers"
    if width <= 0 or height <= 0:
        return "has no size"
    if width < 1 or height < 1:
        return "is smaller than a pixel; boxes are x, y, width, height in pixels"
    if max(width, height) > _LARGEST_SIDE:
        return "is larger than any picture"
    if x >= shape[1] or y >= shape[0] or x + width <= 0 or y + height <= 0:
        return f"lies outside the picture of {shape[1]}×{shape[0]} pixels"
    return None


def mirror_matrix(matrix: np.ndarray, width: int) -> np.ndarray:
    """Return `matrix` followed by a left-right mirror of a crop of that width (x → width - 1 - x).

    Mirroring the crop undoes itself, and leaves the middle where it is.
    """
    mirrored = matrix.copy()
    mirrored[0] = -matrix[0]
    mirrored[0, 2] += width - 1
    return mirrored


def reduction(scale: Sequence[float] | np.ndarray, size: Sequence[int]) -> int:
    """Return by how much (1, 2, 4 or 8) the picture may shrink and not be coarser than the crop."""
    ratio = (scale[0] * PIXELS_PER_SCALE - 1) / (size[0] - 1)
    return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor <= ratio)


def reduced_matrix(matrix: np.ndarray, factor: int) -> np.ndarray:
    """Return the matrix that does to a picture shrunk by `factor` what `matrix` does to the whole.

    Pixel i of the small picture is the mean of pixels factor·i … factor·i + factor - 1.
    """
    offset = (factor - 1) / 2
    return matrix @ np.array([[factor, 0, offset], [0, factor, offset], [0, 0, 1]])


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply `matrix` [2, 3] to `points` [..., 2]; float64 [..., 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def crop_image(image: np.ndarray, matrix: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Cut the crop of `size` (w, h) out of `image` uint8 [H, W, 3]; uint8 [h, w, 3].

    Bilinear; black where the crop reaches beyond the picture.
    """
    if max(image.shape[:2]) > _LONGEST_SOURCE:
        image, matrix = _touched(image, matrix, size)
    return cv2.warpAffine(image, matrix, (int(size[0]), int(size[1])), flags=cv2.INTER_LINEAR)


def _touched(
    image: np.ndarray, matrix: np.ndarray, size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a huge picture that a crop touches, shrunk if still huge, and its map."""
    corners = np.array([[0, 0], [size[0] - 1, 0], [0, size[1] - 1], np.subtract(size, 1)])
    touched = transform_points(corners, cv2.invertAffineTransform(matrix))
    most = image.shape[1::-1]
    low = (np.floor(touched.min(axis=0)) - 2).clip(0, np.subtract(most, 1)).astype(int)
    high = (np.ceil(touched.max(axis=0)) + 3).clip(low + 1, most).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    shrunk = tuple(int(side) for side in np.minimum(high - low, _LONGEST_SOURCE))
    zoom = (high - low) / shrunk  # 1 where the part is small enough
    if (zoom > 1).any():
        part = cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA)
    offset = low + (zoom - 1) / 2  # of the first pixel's middle
    back = np.array([[zoom[0], 0, offset[0]], [0, zoom[1], offset[1]], [0, 0, 1]])
    return part, matrix @ back


def crop_to_heatmap(
    joints: Points, image_size: Sequence[int], heatmap_size: Sequence[int]
) -> Points:
    """Turn `joints` [..., 2] in crop pixels into heatmap cells, not rounded; array or tensor.

    The same as `crop_matrix` with the heatmap's size: middle to middle, widths set the zoom.
    """
    zoom = (heatmap_size[0] - 1) / (image_size[0] - 1)
    shift = (heatmap_size[1] - 1) / 2 - (image_size[1] - 1) / 2 * zoom
    stack = torch.stack if isinstance(joints, torch.Tensor) else np.stack
    return stack((joints[..., 0] * zoom, joints[..., 1] * zoom + shift), -1)


def heatmap_to_crop(
    joints: Points, image_size: Sequence[int], heatmap_size: Sequence[int]
) -> Points:
    """Undo `crop_to_heatmap`: `joints` [..., 2] in heatmap cells into crop pixels."""
    return crop_to_heatmap(joints, heatmap_size, image_size)
