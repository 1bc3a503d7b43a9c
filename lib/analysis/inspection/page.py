"""The page of an inspection: one HTML file that loads nothing else.

`page.html` is the template. The results are inserted as JSON, large arrays within it as base64.
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

from lib.analysis.inspection.gather import Inspection
from lib.analysis.inspection.plots import COLORS, COVER, COVER_OPACITY
from lib.utils.drawing import LEFT_COLOR, MIDDLE_COLOR, RIGHT_COLOR, side_of

_TEMPLATE = Path(__file__).with_name("page.html")
_SIDE_COLORS = {"left": LEFT_COLOR, "right": RIGHT_COLOR, "": MIDDLE_COLOR}


def page(result: Inspection, about: Mapping[str, str]) -> str:
    """Return the HTML; `about` are name and value of the lines at the top, the first the title.

    Names may hold anything: they are inserted as JSON and shown as text.
    """
    title = next(iter(about.values()), "")
    data = json.dumps(_content(result, about), separators=(",", ":"))
    for sign in "<>&":  # a file named `</script>` must not end the script
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    parts = {"title": html.escape(f"Sparsity: {title}"), "data": data}
    text = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def _content(result: Inspection, about: Mapping[str, str]) -> dict[str, Any]:
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(result.image, cv2.COLOR_RGB2BGR))[1]
    return {
        "about": list(about.items()),
        "image": "data:image/jpeg;base64," + _base64(jpeg),
        "size": result.image.shape[1::-1],
        "grid": result.grid,
        "colors": np.rint(255 * COLORS(np.linspace(0, 1, 256))[:, :3]).astype(int).tolist(),
        "cover": [COVER, COVER_OPACITY],
        "removesTokens": result.removes_tokens,
        "joints": [
            {
                "name": name.replace("_", " "),
                "color": _SIDE_COLORS[side_of(name)],
                "x": round(float(x) + 0.5, 2),  # a canvas counts from the edge of a pixel
                "y": round(float(y) + 0.5, 2),
                "score": round(float(score), 4),
            }
            for name, (x, y), score in zip(
                result.skeleton.names, result.joints, result.scores, strict=True
            )
        ],
        "limbs": result.skeleton.limbs,
        "toVisual": _base64(result.to_visual.astype("<f4")),
        "visualShare": result.to_visual.sum(axis=2).astype(float).round(4).tolist(),
        "jointLayers": result.joint_layers.astype(float).round(4).tolist(),
        "mask": None if result.mask is None else result.mask.astype(int).tolist(),
        "stages": [
            {
                "layer": stage.layer,
                "kept": stage.kept,
                "attendedBy": stage.attended_by.tolist(),
                "savedGmacs": stage.saved_gmacs,
                "connections": None
                if stage.connections is None
                else _base64(np.packbits(stage.connections)),
            }
            for stage in result.stages
        ],
        "denseGmacs": result.dense_gmacs,
    }


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
