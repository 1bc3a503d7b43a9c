"""Pictures of an inspection, for papers and for who cannot open the page."""

from dataclasses import replace

import cv2
import numpy as np

from lib.core.inspection.gather import Inspection, StageSeen
from lib.utils.drawing import (
    LEFT_COLOR,
    MIDDLE_COLOR,
    RIGHT_COLOR,
    draw_person,
    grid,
    side_of,
)
from lib.utils.plot import new_panels, picture

# Colors of attention from none to the largest: share, then RGB.
RAMP = (
    (0.0, 52, 18, 92), (0.3, 140, 32, 130), (0.6, 232, 70, 130),
    (0.82, 255, 160, 120), (1.0, 255, 246, 190),
)  # fmt: skip
KINDS = {"self": "#8d8797", "limb": "#5cb48f", "mirror": "#b48be0", "far": "#b9b48b"}
_TILE_SIDE = 192
_COVER = 248  # gray of a patch that is gone, before its hatching

# Where the joints of a person stand who faces us: x from the middle, y from the top, of a height
# of 1. Joints of the right lie at -x, which is where we see them.
_STANDING = {
    "head_top": (0.0, 0.0), "upper_neck": (0.0, 0.17), "thorax": (0.0, 0.26), "pelvis": (0.0, 0.52),
    "nose": (0.0, 0.09), "eye": (0.13, 0.03), "ear": (0.3, 0.07),
    "shoulder": (0.42, 0.24), "elbow": (0.62, 0.39), "wrist": (0.78, 0.54),
    "hip": (0.25, 0.55), "knee": (0.32, 0.77), "ankle": (0.36, 1.0),
}  # fmt: skip


def standing(name: str) -> tuple[float, float]:
    """Where a joint is drawn in a graph of the skeleton: x from -1 to 1, y down from 0 to 1."""
    side = side_of(name)
    x, y = _STANDING[name.removeprefix(f"{side}_")]
    return (-x if side == "right" else x), y


def pictures(seen: Inspection) -> dict[str, np.ndarray]:
    """Draw what was seen: file name -> uint8 RGB.

    `person`, `stage_<n>` for each pruning (with `connection` also `connections_<n>`, of the patch
    under each joint), `attention_<joint>` with the layers as columns, and `joint_mask`.
    """
    drawn = {"person.png": draw_person(seen.picture, seen.joints, seen.scores, seen.skeleton)}
    tile = _as_tile(seen)
    for number, stage in enumerate(seen.stages, 1):
        drawn[f"stage_{number}.png"] = alive_picture(seen, stage)
        if stage.connections is not None:
            drawn[f"connections_{number}.png"] = _connections_sheet(tile, stage)
    for joint, name in enumerate(seen.skeleton.names):
        drawn[f"attention_{joint:02d}_{name}.png"] = _attention_row(tile, joint)
    if seen.mask is not None:
        drawn["joint_mask.png"] = _mask_picture(seen)
    return drawn


def attention_picture(seen: Inspection, layer: int, joint: int) -> np.ndarray:
    """Lay a joint's attention in a layer over the gray picture; tokens that have left are hatched.

    Colors go from the patch that gets least to the one that gets most.
    """
    gray = cv2.cvtColor(cv2.cvtColor(seen.picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) * 0.7
    weights, computed = seen.to_visual[layer, joint], in_sequence(seen, layer)
    low, high = weights[computed].min(), weights[computed].max()
    level = np.sqrt((weights - low).clip(0) / max(high - low, np.finfo(np.float32).tiny))
    shares, *colors = zip(*RAMP, strict=True)
    color = np.stack([np.interp(level, shares, channel) for channel in colors], axis=1)
    drawn = _mix(gray, _spread(color, seen), _spread(0.12 + 0.7 * level, seen))
    return _hide(drawn, ~computed, seen)


def alive_picture(seen: Inspection, stage: StageSeen) -> np.ndarray:
    """Hatch what a stage leaves out of the picture: tokens that leave, or that nobody looks at.

    With `connection` a patch is the paler the fewer others still look at it.
    """
    drawn = seen.picture
    if stage.connections is not None:
        looks = stage.connections.sum(axis=0)
        fewest, most = looks.min(), looks.max()
        pale = 0.72 * (most - looks) / max(1, most - fewest)
        drawn = _mix(drawn, _COVER, _spread(pale, seen))
    return _hide(drawn, ~stage.alive, seen)


def in_sequence(seen: Inspection, layer: int) -> np.ndarray:
    """Which visual tokens a layer of the main transformer computes, bool [HW]."""
    before = [stage for stage in seen.stages if stage.layer < layer]
    if seen.prune == "token" and before:
        return before[-1].alive
    return np.ones(seen.to_visual.shape[2], dtype=bool)


def kind_of(seen: Inspection, a: int, b: int) -> str:
    """Why joint `a` may look at `b`: one of KINDS."""
    if a == b:
        return "self"
    for kind, pairs in (("mirror", seen.skeleton.mirrors), ("limb", seen.skeleton.limbs)):
        if (a, b) in pairs or (b, a) in pairs:
            return kind
    return "far"


def _as_tile(seen: Inspection) -> Inspection:
    """The same over a picture of about the side of a tile, which the patches still divide."""
    zoom = max(1, round(_TILE_SIDE / max(seen.image_size)))
    size = [zoom * side for side in seen.image_size]
    shrink = size[0] / seen.picture.shape[1]
    return replace(
        seen,
        picture=cv2.resize(seen.picture, size, interpolation=cv2.INTER_AREA),
        joints=shrink * (seen.joints + 0.5) - 0.5,
    )


def _attention_row(seen: Inspection, joint: int) -> np.ndarray:
    tiles = []
    for layer in range(len(seen.to_visual)):
        share = seen.to_visual[layer, joint].sum()
        tiles.append(
            _captioned(
                attention_picture(seen, layer, joint), f"layer {layer}: {share:.0%} on the picture"
            )
        )
    return grid(tiles, len(tiles))


def _connections_sheet(seen: Inspection, stage: StageSeen) -> np.ndarray:
    """What the patch under each joint still looks at, a tile a joint."""
    tiles = []
    height, width = seen.picture.shape[:2]
    columns, rows = seen.grid
    for (x, y), name in zip(seen.joints, seen.skeleton.names, strict=True):
        column = int(np.clip((x + 0.5) / width * columns, 0, columns - 1))
        row = int(np.clip((y + 0.5) / height * rows, 0, rows - 1))
        drawn = _hide(seen.picture, ~stage.connections[row * columns + column], seen)
        upper, left = row * height // rows, column * width // columns
        lower, right = upper + height // rows - 1, left + width // columns - 1
        cv2.rectangle(drawn, (left, upper), (right, lower), (255, 79, 174), 2)
        tiles.append(_captioned(drawn, name))
    return grid(tiles, -(-len(tiles) // 2))


def _mask_picture(seen: Inspection) -> np.ndarray:
    """The joint mask as a graph and as a matrix."""
    names = [name.replace("_", " ") for name in seen.skeleton.names]
    graph, matrix = new_panels(1, 2, height=5.2, width=11)
    places = np.array([standing(name) for name in seen.skeleton.names])
    count = len(names)
    for a in range(count):
        for b in range(a + 1, count):
            kind = kind_of(seen, a, b)
            if seen.mask[a, b]:
                graph.plot(*places[[a, b]].T, color=KINDS[kind], zorder=1,
                           linewidth=2.5 if kind == "limb" else 1.2,
                           linestyle="-" if kind == "limb" else ":")  # fmt: skip
    sides = {"left": LEFT_COLOR, "right": RIGHT_COLOR, "": MIDDLE_COLOR}
    colors = [np.divide(sides[side_of(name)], 255) for name in seen.skeleton.names]
    graph.scatter(*places.T, c=colors, s=60, edgecolors="#444444", zorder=2)
    for (x, y), name in zip(places, names, strict=True):
        away, side = (-6, "right") if x < 0 else (6, "left")
        graph.annotate(
            name, (x, y), xytext=(away, 5), textcoords="offset points", ha=side, fontsize=7
        )
    graph.set(xlim=(-1.2, 1.2), ylim=(1.08, -0.08))
    graph.axis("off")
    cells = np.full((count, count, 3), 0.93)
    for a, b in zip(*np.nonzero(seen.mask), strict=True):
        code = KINDS[kind_of(seen, a, b)]
        cells[a, b] = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    matrix.grid(False)
    matrix.imshow(cells)
    matrix.set_xticks(range(count), names, rotation=90, fontsize=7)
    matrix.set_yticks(range(count), names, fontsize=7)
    matrix.set_title(f"{seen.mask.sum()} of {count * count} pairs", fontsize=9)
    for kind, color in KINDS.items():
        if (cells == [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]).all(axis=2).any():
            matrix.scatter([], [], marker="s", color=color, label=_WORDS[kind])
    matrix.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    return picture(matrix.figure)


_WORDS = {
    "self": "itself",
    "limb": "joined by a limb",
    "mirror": "mirror joint",
    "far": "farther",
}


def _spread(values: np.ndarray, seen: Inspection) -> np.ndarray:
    """Values of the patches [HW] or [HW, C] over the picture [h, w, C]."""
    columns, rows = seen.grid
    height, width = seen.picture.shape[:2]
    values = values.reshape(rows, columns, -1)
    return values.repeat(height // rows, axis=0).repeat(width // columns, axis=1)


def _mix(below: np.ndarray, above: np.ndarray | float, opacity: np.ndarray) -> np.ndarray:
    return np.uint8(np.rint(below * (1 - opacity) + above * opacity))


def _hide(image: np.ndarray, gone: np.ndarray, seen: Inspection) -> np.ndarray:
    """Pale and hatch the patches that are gone, bool [HW]."""
    height, width = image.shape[:2]
    stripes = (np.add.outer(np.arange(height), np.arange(width)) % 10 < 2)[..., None]
    above = np.where(stripes, 150.0, _COVER)
    return _mix(image, above, 0.84 * _spread(gone.astype(np.float64), seen))


def _captioned(tile: np.ndarray, text: str) -> np.ndarray:
    """Put a line of text above a tile."""
    strip = np.full((22, tile.shape[1], 3), 255, dtype=np.uint8)
    size = 0.45
    wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]
    size *= min(1.0, (tile.shape[1] - 6) / wide)
    cv2.putText(strip, text, (3, 15), cv2.FONT_HERSHEY_SIMPLEX, size, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([strip, tile])
