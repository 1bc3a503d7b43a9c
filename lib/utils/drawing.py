"""Pictures of what goes in and comes out: people over photographs, heatmaps, grids of tiles.

Images are uint8 RGB [h, w, 3]; no function but `paint_person` changes what it is given. A joint
(x, y) names the middle of a pixel when it is whole.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from lib.utils.errors import UserError
from lib.utils.files import write_bytes

# Hues that also color-blind people tell apart: Okabe and Ito, "Color Universal Design", 2008.
LEFT_COLOR = (86, 180, 233)  # sky blue
RIGHT_COLOR = (240, 100, 0)  # vermilion, a little lighter than theirs
MIDDLE_COLOR = (240, 228, 66)  # yellow
_OUTLINE_COLOR = (0, 0, 0)
_OUTLINE_OPACITY = 0.5
_GAP = 4  # pixels between two tiles
_GAP_COLOR = 255
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_FARTHEST = 1e5  # pixels; OpenCV's coordinates are whole numbers of 32 bits


class Skeleton(Protocol):
    """What drawing needs to know of a skeleton; names start with `left_`, `right_` or neither."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the joints, [J]."""

    @property
    def limbs(self) -> Sequence[tuple[int, int]]:
        """Pairs of joints that a limb joins."""


def draw_person(
    image: np.ndarray,
    joints: np.ndarray,
    shown: np.ndarray,
    skeleton: Skeleton,
    thickness: float | None = None,
) -> np.ndarray:
    """Return the image with a person's limbs and joints drawn over it.

    `joints` [J, 2] are (x, y) in pixels and may lie outside. `shown` [J] is how opaque a joint is,
    0 to 1: its confidence or visibility; 0 or NaN, and a joint that is not finite, is not drawn.
    A limb is as opaque as the fainter of its joints. `thickness` of limbs is in pixels, by default
    in proportion to the person.
    """
    drawn = image.copy()
    paint_person(drawn, joints, shown, skeleton, thickness)
    return drawn


def paint_person(
    image: np.ndarray,
    joints: np.ndarray,
    shown: np.ndarray,
    skeleton: Skeleton,
    thickness: float | None = None,
) -> None:
    """Do to the image itself what `draw_person` does to a copy: a video has no time for copies."""
    joints = np.asarray(joints, dtype=np.float64)
    opacity = np.nan_to_num(np.asarray(shown, dtype=np.float64), nan=0.0).clip(0, 1)
    opacity = np.where(np.isfinite(joints).all(1), opacity, 0.0)
    joints = np.nan_to_num(joints).clip(-_FARTHEST, _FARTHEST)
    if thickness is None:
        thickness = person_thickness(joints[opacity > 0], image.shape)
    colors = [_color({side_of(name)}) for name in skeleton.names]
    # A joint is a limb without length.
    strokes = [
        (a, b, thickness / 2, _color({side_of(skeleton.names[a]), side_of(skeleton.names[b])}))
        for a, b in skeleton.limbs
    ] + [(joint, joint, 0.9 * thickness, color) for joint, color in enumerate(colors)]
    starts, ends, radii, colors = zip(*strokes, strict=True)
    visible = np.minimum(opacity[[*starts]], opacity[[*ends]]).tolist()
    pairs, radii = np.stack([joints[[*starts]], joints[[*ends]]], axis=1), np.array(radii)
    outlines = _capsules(pairs, radii + max(0.75, thickness / 5))
    for outline, inner, color, alpha in zip(
        outlines, _capsules(pairs, radii), colors, visible, strict=True
    ):
        _fill(image, outline, _OUTLINE_COLOR, alpha * _OUTLINE_OPACITY)
        _fill(image, inner, color, alpha)


def person_thickness(corners: np.ndarray, shape: tuple[int, ...]) -> float:
    """Thickness of limbs, in pixels, that suits a person with those corners or joints [N, 2].

    In proportion to their extent, as far as it lies in an image of that `shape`; 2 at least.
    """
    inside = corners.clip(0, (shape[1], shape[0]))
    return max(2.0, 0.012 * np.ptp(inside, axis=0).max()) if len(inside) else 2.0


def draw_heatmaps(image: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Return a row of J tiles: the image, faded, under each of the heatmaps [J, h, w].

    Heatmaps are on the scale of their targets: 0, below or NaN is clear, 1 and above the brightest.
    Their outer cells lie on the image's outer pixels, as in `lib.dataset.heatmap`.
    """
    height, width = image.shape[:2]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * np.float32(0.5)
    tiles = []
    for heatmap in np.nan_to_num(np.asarray(heatmaps, dtype=np.float32)).clip(0, 1):
        level = np.sqrt(_spread(heatmap, (width, height)))  # the root lets faint maps be seen
        color = cv2.applyColorMap(np.uint8(np.rint(level * 255)), cv2.COLORMAP_INFERNO)[..., ::-1]
        tiles.append(np.uint8(np.rint(gray + (color - gray) * level[..., None])))
    return grid(tiles, len(tiles))


def grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return the images, all of one size, side by side in rows of `columns`, a thin gap between."""
    if not len(images) or columns < 1:
        raise ValueError(f"a grid needs images and columns, not {len(images)} and {columns}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = images[0].shape[:2]
    shape = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3)
    page = np.full(shape, _GAP_COLOR, dtype=np.uint8)
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            raise ValueError(f"tile {index} is {image.shape}, the first {images[0].shape}")
        row, column = divmod(index, columns)
        top, left = row * (height + _GAP), column * (width + _GAP)
        page[top : top + height, left : left + width] = image
    return page


def save_image(path: str | Path, rgb: np.ndarray) -> None:
    """Write an image in the format that the path's ending names; make its folder where it lacks.

    Another process sees the old file or the new one. UserError where it cannot be written.
    """
    path = Path(path)
    if not cv2.haveImageWriter(str(path)):
        raise UserError(f"cannot write {path}: its name must end in .png, .jpg or the like")
    try:
        done, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        size = f"{rgb.shape[1]}×{rgb.shape[0]}"
        raise UserError(f"cannot write {path}: {size} pixels do not fit into a {path.suffix} file")
    write_bytes(path, data.tobytes())


def draw_batch(
    images: np.ndarray,
    joints: np.ndarray,
    shown: np.ndarray,
    skeleton: Skeleton,
    columns: int = 8,
    most: int = 32,
    side: int = 256,
) -> np.ndarray:
    """Return the first `most` crops of a batch as a grid, each with its person drawn.

    `images` uint8 [B, h, w, 3], `joints` [B, J, 2] in the crop's pixels, `shown` [B, J] as in
    `draw_person`. The longer side of a tile is `side` pixels.
    """
    tiles = []
    for image, points, opacity in zip(images[:most], joints[:most], shown[:most], strict=True):
        tile = _resize(image, side)
        # cv2.resize keeps the outer edges of the pixels, which lie half a pixel from their middles.
        zoom = np.divide(tile.shape[1::-1], image.shape[1::-1])
        points = (np.asarray(points, dtype=np.float64) + 0.5) * zoom - 0.5
        tiles.append(draw_person(tile, points, opacity, skeleton))
    return grid(tiles, columns)


def draw_batch_heatmaps(
    images: np.ndarray, heatmaps: np.ndarray, most: int = 8, side: int = 128
) -> np.ndarray:
    """Return the first `most` crops of a batch, a row each: its J heatmaps over the crop.

    `images` uint8 [B, h, w, 3], `heatmaps` [B, J, h', w']. The longer side of a tile is `side`
    pixels.
    """
    rows = [
        draw_heatmaps(_resize(image, side), maps)
        for image, maps in zip(images[:most], heatmaps[:most], strict=True)
    ]
    return grid(rows, 1)


def side_of(name: str) -> str:
    """Tell a joint's side by its name: `left`, `right` or, for neither, the empty string."""
    side = name.partition("_")[0]
    return side if side in ("left", "right") else ""


def _color(sides: set[str]) -> tuple[int, int, int]:
    """The color of what touches those sides; a limb from left to right belongs to the middle."""
    if sides <= {"left", ""} and "left" in sides:
        return LEFT_COLOR
    if sides <= {"right", ""} and "right" in sides:
        return RIGHT_COLOR
    return MIDDLE_COLOR


def _capsules(ends: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Outlines of lines with round caps between ends [S, 2, 2]: float64 [S, 34, 2]."""
    way = ends[:, 1] - ends[:, 0]
    angles = np.arctan2(way[:, 1], way[:, 0])[:, None] + np.linspace(0.5, 1.5, 17) * np.pi
    cap = radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=2)
    return np.concatenate([ends[:, :1] + cap, ends[:, 1:] - cap], axis=1)


def _fill(
    image: np.ndarray, polygon: np.ndarray, color: tuple[int, int, int], opacity: float
) -> None:
    """Fill, in the image, a convex polygon [N, 2] with smooth edges."""
    if opacity <= 0:
        return
    (left, top), (right, bottom) = polygon.min(0).tolist(), polygon.max(0).tolist()
    left, top = max(0, int(left) - 2), max(0, int(top) - 2)
    right, bottom = min(image.shape[1], int(right) + 3), min(image.shape[0], int(bottom) + 3)
    if left >= right or top >= bottom:
        return
    part = image[top:bottom, left:right]
    points = np.rint((polygon - (left, top)) * (1 << _SHIFT)).astype(np.int32)
    filled = part if opacity >= 1 else part.copy()
    cv2.fillConvexPoly(filled, points, color, cv2.LINE_AA, _SHIFT)
    if opacity < 1:
        cv2.addWeighted(filled, opacity, part, 1 - opacity, 0, dst=part)


def _resize(image: np.ndarray, side: int) -> np.ndarray:
    """The image with its longer side made `side` pixels."""
    zoom = side / max(image.shape[:2])
    size = tuple(max(1, round(zoom * length)) for length in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)


def _spread(heatmap: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A heatmap over an image of that (width, height): outer cells on the outer pixels."""
    steps = [
        (cells - 1) / max(1, pixels - 1)
        for cells, pixels in zip(heatmap.shape[::-1], size, strict=True)
    ]
    matrix = np.array([[steps[0], 0, 0], [0, steps[1], 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(heatmap, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
