"""The page that shows an inspection: one HTML file that needs nothing beside it.

`page.html` is the page without its numbers; they go in as JSON, weights as bytes.
"""

import base64
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lib.core.inspection.gather import Inspection, StageSeen
from lib.core.inspection.pictures import RAMP, standing
from lib.utils.drawing import LEFT_COLOR, MIDDLE_COLOR, RIGHT_COLOR, side_of

_TEMPLATE = Path(__file__).with_name("page.html")
_CONNECTION_BYTES = 400_000  # of all stages; beyond, only every so many-th patch has its row
_JPEG_QUALITY = 85


def page(seen: Inspection, about: Mapping[str, str]) -> str:
    """Write the page; `about` are the lines of its head, name and value, the first is its title.

    Names may hold anything: they reach the page as JSON and are shown as text.
    """
    title = next(iter(about.values()), "")
    # No < and > in the JSON: `</script>` in a file's name must not end the script.
    data = json.dumps(_content(seen, about), separators=(",", ":"))
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    parts = {"title": html.escape(f"Sparsity: {title}"), "data": data}
    text = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def _content(seen: Inspection, about: Mapping[str, str]) -> dict[str, Any]:
    skeleton, own, dense = seen.skeleton, seen.work, seen.dense_work
    step = _row_step(seen)
    return {
        "about": list(about.items()),
        "picture": _data_uri(seen.picture),
        "size": seen.picture.shape[1::-1],
        "grid": seen.grid,
        "ramp": RAMP,
        "colors": {"left": LEFT_COLOR, "right": RIGHT_COLOR, "middle": MIDDLE_COLOR},
        "prune": seen.prune,
        "ratio": seen.keep_ratio,
        "hops": seen.joint_hops,
        "joints": [
            {
                "name": name,
                "side": side_of(name) or "middle",
                # To the canvas a pixel's middle lies at half of it.
                "x": round(float(x) + 0.5, 2),
                "y": round(float(y) + 0.5, 2),
                "score": round(float(score), 4),
                "stand": standing(name),
            }
            for name, (x, y), score in zip(skeleton.names, seen.joints, seen.scores, strict=True)
        ],
        "limbs": skeleton.limbs,
        "mirrors": skeleton.mirrors,
        "toVisual": _packed(seen.to_visual),
        "toKeypoints": _packed(seen.to_keypoints),
        "within": _packed(seen.joint_layers),
        "keypointShare": seen.to_keypoints.sum(axis=2).astype(float).round(5).tolist(),
        "mask": None if seen.mask is None else seen.mask.astype(int).tolist(),
        "step": step,
        "stages": [_stage(stage, seen.grid, step) for stage in seen.stages],
        "layers": [
            {"tokens": layer.tokens, "own": layer.total, "dense": whole.total}
            for layer, whole in zip(own.layers, dense.layers, strict=True)
        ],
        "jointLayers": [layer.total for layer in own.joint_layers],
        "work": {
            "stem": own.stem,
            "patches": own.patches,
            "head": own.head,
            "own": own.total,
            "dense": dense.total,
            "masked": sum(layer.masked for layer in own.layers),
        },
    }


def _stage(stage: StageSeen, grid: tuple[int, int], step: int) -> dict[str, Any]:
    content = {
        "layer": stage.layer,
        "before": stage.before,
        "kept": stage.kept,
        "alive": _base64(np.packbits(stage.alive)),
        "aliveCount": int(stage.alive.sum()),
        "saved": stage.saved_macs,
        "connections": None,
    }
    if stage.connections is not None:
        width, height = grid
        rows = stage.connections.reshape(height, width, -1)[::step, ::step]
        content["connections"] = _base64(np.packbits(rows, axis=2))
        content["keptBy"] = stage.connections.sum(axis=0).tolist()
    return content


def _row_step(seen: Inspection) -> int:
    """How far apart, across and down, the patches lie whose connections the page has room for."""
    width, height = seen.grid
    step = 1
    while True:
        rows = -(-width // step) * -(-height // step)
        if len(seen.stages) * rows * width * height / 8 <= _CONNECTION_BYTES or rows == 1:
            return step
        step += 1


def _packed(weights: np.ndarray) -> dict[str, Any]:
    """Maps of weights [..., n] as bytes, round(255·√(weight / the map's largest)).

    The root leaves the small weights, of which there are many, more of the 256 steps.
    """
    largest = weights.max(axis=-1)
    level = np.sqrt(weights / np.maximum(largest, np.finfo(np.float32).tiny)[..., None])
    values = np.rint(255 * level).astype(np.uint8)
    return {"values": _base64(values), "largest": [float(f"{x:.6g}") for x in largest.ravel()]}


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _data_uri(picture: np.ndarray) -> str:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + _base64(data)
