"""PNG files of an inspection, for papers: attention and pruning stages."""

import cv2
import numpy as np
from matplotlib import colormaps

from lib.analysis.inspection.gather import Inspection, StageResult
from lib.utils.drawing import draw_person, grid

COLORS = colormaps["inferno"]  # of attention, from the least to the largest weight
COVER = 245  # gray over a pruned patch
COVER_OPACITY = 0.85
_TILE_SIDE = 192  # pixels


def plots(result: Inspection) -> dict[str, np.ndarray]:
    """Draw an inspection: file name -> uint8 RGB.

    `person`, `stage_<n>` for each pruning stage, `attention_<joint>` with the layers as columns.
    """
    person = draw_person(result.image, result.joints, result.scores, result.skeleton)
    drawn = {"person.png": person}
    for number, stage in enumerate(result.stages, 1):
        drawn[f"stage_{number}.png"] = stage_plot(result, stage)
    for joint, name in enumerate(result.skeleton.names):
        tiles = [_tile(result, layer, joint) for layer in range(len(result.to_visual))]
        drawn[f"attention_{joint:02d}_{name}.png"] = grid(tiles, len(tiles))
    return drawn


def attention_plot(result: Inspection, layer: int, joint: int) -> np.ndarray:
    """Draw a joint's attention in a layer over the image; pruned patches are covered.

    Colors span the weights of the layer's tokens; the root makes small weights visible.
    """
    weights, present = result.to_visual[layer, joint], result.in_sequence(layer)
    low, high = weights[present].min(), weights[present].max()
    level = np.sqrt((weights - low).clip(0) / max(high - low, np.finfo(np.float32).tiny))
    gray = cv2.cvtColor(cv2.cvtColor(result.image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    drawn = _blend(result, gray, 255 * COLORS(level)[:, :3], 0.3 + 0.5 * level)
    return _blend(result, drawn, COVER, COVER_OPACITY * ~present)


def stage_plot(result: Inspection, stage: StageResult) -> np.ndarray:
    """Cover the pruned patches; with a mask, the fewer tokens attend to a patch the paler it is."""
    share = stage.attended_by / stage.attended_by.max()
    return _blend(result, result.image, COVER, COVER_OPACITY * (1 - share))


def _blend(
    result: Inspection, image: np.ndarray, color: np.ndarray | int, opacity: np.ndarray
) -> np.ndarray:
    """Blend a color, or one for each patch [HW, 3], over an image, by an opacity [HW]."""
    (columns, rows), (height, width) = result.grid, image.shape[:2]
    colors = np.broadcast_to(color, (len(opacity), 3))
    values = np.concatenate([colors, opacity[:, None]], axis=1).reshape(rows, columns, 4)
    values = values.repeat(height // rows, axis=0).repeat(width // columns, axis=1)
    above, alpha = values[..., :3], values[..., 3:]
    return np.rint(image * (1 - alpha) + above * alpha).astype(np.uint8)


def _tile(result: Inspection, layer: int, joint: int) -> np.ndarray:
    """A small attention plot under a line of text."""
    drawn = attention_plot(result, layer, joint)
    zoom = _TILE_SIDE / max(drawn.shape[:2])
    tile = cv2.resize(drawn, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    strip = np.full((20, tile.shape[1], 3), 255, dtype=np.uint8)
    text = f"layer {layer}: {result.to_visual[layer, joint].sum():.0%}"
    cv2.putText(strip, text, (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30,) * 3, 1, cv2.LINE_AA)
    return np.concatenate([strip, tile])
