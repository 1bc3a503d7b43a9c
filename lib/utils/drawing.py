"""Drawing: people over images, heatmaps over crops, grids of tiles.

Images are uint8 RGB [h, w, 3] and are not changed. Integer coordinates are pixel centers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from einops import rearrange
from torch.nn import functional

from lib.utils.errors import UserError
from lib.utils.files import write_bytes

# Distinct for color-blind people too: Okabe and Ito, "Color Universal Design", 2008.
LEFT_COLOR = (86, 180, 233)  # sky blue
RIGHT_COLOR = (240, 100, 0)  # vermilion, slightly lighter than theirs
MIDDLE_COLOR = (240, 228, 66)  # yellow
KEYPOINT_THRESHOLD = 0.2  # joints with a lower score are not drawn
_GAP = 4  # pixels between tiles
_SHIFT = 4  # fractional bits of OpenCV's coordinates
_MAX_COORDINATE = 1e5  # pixels; OpenCV's coordinates are 32-bit integers


class _Skeleton(Protocol):  # `lib.dataset.skeleton.Skeleton`, which this module is below
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def limbs(self) -> Sequence[tuple[int, int]]: ...


def draw_person(
    image: np.ndarray,
    joints: np.ndarray,
    scores: np.ndarray,
    skeleton: _Skeleton,
    threshold: float = KEYPOINT_THRESHOLD,
) -> np.ndarray:
    """Return a copy of the image with a person's limbs and joints.

    `joints` [J, 2] are (x, y) in pixels and may be outside the image. A joint is drawn if it is
    finite and its score or visibility, `scores` [J], is above `threshold`.
    """
    drawn, joints = image.copy(), np.asarray(joints, dtype=np.float64)
    shown = np.isfinite(joints).all(axis=1) & (np.asarray(scores) > threshold)
    joints = np.nan_to_num(joints).clip(-_MAX_COORDINATE, _MAX_COORDINATE)
    inside = joints[shown].clip(0, image.shape[1::-1])
    thickness = max(2, round(0.012 * np.ptp(inside, axis=0).max())) if shown.any() else 2
    points = np.rint(joints * (1 << _SHIFT)).astype(int).tolist()
    strokes = [(a, b, thickness) for a, b in skeleton.limbs if shown[a] and shown[b]]
    strokes += [(joint, joint, 2 * thickness) for joint in np.flatnonzero(shown).tolist()]
    for border in (max(1, thickness // 5), 0):  # black outlines first, then the colors
        for a, b, width in strokes:
            color = (0, 0, 0) if border else color_of(skeleton.names[a], skeleton.names[b])
            width += 2 * border
            cv2.line(drawn, points[a], points[b], color, width, cv2.LINE_AA, _SHIFT)
    return drawn


def draw_box(image: np.ndarray, box: np.ndarray, text: str = "") -> np.ndarray:
    """Return a copy of the image with a box (x, y, width, height), in pixels, and text in it."""
    drawn = image.copy()
    corners = np.array([box[:2], box[:2] + box[2:]]).clip(-_MAX_COORDINATE, _MAX_COORDINATE)
    (left, top), (right, bottom) = np.rint(corners).astype(int).tolist()
    width = max(1, round(0.006 * min(max(image.shape[:2]), max(box[2:]))))
    scale = max(0.4, 0.25 * width)
    start = (max(left, 0) + 2 * width, max(top, 0) + 2 * width + round(22 * scale))
    for color, stroke in (((0, 0, 0), 3 * width), ((255, 255, 255), width)):
        cv2.rectangle(drawn, (left, top), (right, bottom), color, stroke)
        cv2.putText(drawn, text, start, cv2.FONT_HERSHEY_SIMPLEX, scale, color, stroke)
    return drawn


def draw_heatmaps(image: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Return a row of J tiles: the image, faded, under each of the heatmaps [J, h, w].

    0, negative values and NaN are transparent, 1 and above are brightest. The outer cells are on
    the outer pixels, as in `lib.dataset.heatmap`.
    """
    size = image.shape[:2]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * np.float32(0.5)
    maps = torch.from_numpy(np.nan_to_num(np.asarray(heatmaps, dtype=np.float32)).clip(0, 1))
    maps = functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=True)[0]
    tiles = []
    for level in maps.sqrt().numpy():  # the square root makes weak heatmaps visible
        color = cv2.applyColorMap(np.rint(level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
        tile = gray + (color[..., ::-1] - gray) * level[..., None]
        tiles.append(np.rint(tile).astype(np.uint8))
    return grid(tiles, len(tiles))


def grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return images of one size in rows of `columns`, with white gaps."""
    columns = min(columns, len(images))
    empty = [np.full_like(images[0], 255)] * (-len(images) % columns)
    tiles = np.pad([*images, *empty], ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    page = rearrange(tiles, "(row column) h w c -> (row h) (column w) c", column=columns)
    return page[:-_GAP, :-_GAP]


def draw_batch(
    images: np.ndarray,
    joints: np.ndarray,
    scores: np.ndarray,
    skeleton: _Skeleton,
    max_images: int = 32,
) -> np.ndarray:
    """Return the first crops of a batch in rows of eight, each with its person.

    `images` uint8 [B, h, w, 3], `joints` [B, J, 2] in crop pixels, `scores` [B, J]. All joints but
    those with score 0 are drawn, as a network is unsure in its first epochs.
    """
    tiles = []
    for image, points, shown in zip(images[:max_images], joints, scores, strict=False):
        tile = _resize(image, 256)
        zoom = np.divide(tile.shape[1::-1], image.shape[1::-1])
        points = (points + 0.5) * zoom - 0.5  # cv2.resize aligns the outer edges of the pixels
        tiles.append(draw_person(tile, points, shown, skeleton, threshold=0))
    return grid(tiles, 8)


def draw_batch_heatmaps(images: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Draw the heatmaps [B, J, h', w'] of the first eight crops, uint8 [B, h, w, 3], a row each."""
    pairs = zip(images[:8], heatmaps, strict=False)
    return grid([draw_heatmaps(_resize(image, 128), maps) for image, maps in pairs], 1)


def save_image(path: str | Path, rgb: np.ndarray) -> None:
    """Write an image atomically, in the format of its suffix; UserError if it cannot be written."""
    path = Path(path)
    try:
        encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error:
        encoded = False
    if not encoded:
        size = f"{rgb.shape[1]}×{rgb.shape[0]}"
        raise UserError(f"cannot write {path}: no image format that holds {size} pixels; use .png")
    write_bytes(path, data.tobytes())


def color_of(*names: str) -> tuple[int, int, int]:
    """Return the color of a joint or limb by the names of its joints: that of their side."""
    sides = {name.partition("_")[0] for name in names} & {"left", "right"}
    if len(sides) != 1:
        return MIDDLE_COLOR
    return LEFT_COLOR if sides == {"left"} else RIGHT_COLOR


def _resize(image: np.ndarray, side: int) -> np.ndarray:
    """Return the image with its longer side resized to `side` pixels."""
    zoom = side / max(image.shape[:2])
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=method)
