"""The page of an inspection: page.html with the results as JSON; it loads nothing else."""

import base64
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib import colormaps

from lib.analysis.inspection.gather import Box, Inspection, inspect
from lib.config.check import config_error
from lib.core.session import Session
from lib.dataset.images import read_image
from lib.models import build_model
from lib.models.tokenpose import TokenPose
from lib.utils.checkpoint import load_weights
from lib.utils.drawing import color_of
from lib.utils.errors import UserError
from lib.utils.files import write_bytes
from lib.utils.text import shorten

_TEMPLATE = Path(__file__).with_name("page.html")


def inspect_checkpoint(
    session: Session, config: str, image: str, box: Box | None = None, out: Path | None = None
) -> Path:
    """Write the inspection of the session's network on one image; return the path of the page.

    It goes to `out`, by default `inspect/<name of the image>` in the run's folder. UserError names
    what cannot be read, and a network without attention.
    """
    cfg = session.cfg
    if session.distributed.world_size > 1:
        raise UserError("tools/inspect_sparsity.py runs in one process: start it without torchrun")
    model = build_model(cfg)
    if not isinstance(model, TokenPose):
        raise config_error(cfg, "MODEL.NAME", "this network has no attention to inspect")
    pixels = read_image(image, cfg.DATASET.MAX_PIXELS)
    load_weights(model, session.model_file)
    model.to(session.distributed.device).to(memory_format=torch.channels_last)
    result = inspect(cfg, model, pixels, box)
    about = {
        "image": shorten(Path(image).name),
        "configuration": shorten(Path(config).stem),
        "checkpoint": shorten(str(session.model_file)),
        "pruning": result.pruning,
        "person": "the whole image" if box is None else "box " + ",".join(f"{x:g}" for x in box),
        "network input": "{}×{} pixels".format(*cfg.MODEL.IMAGE_SIZE),
    }
    # A folder that can be printed, and is not `.` or `..`.
    name = "".join(char if char.isprintable() else "_" for char in Path(image).stem).strip(".")
    file = (out or session.folder / "inspect" / (name or "image")) / "index.html"
    write_bytes(file, page(result, about).encode())
    return file


def page(result: Inspection, about: Mapping[str, str]) -> str:
    """Return the HTML; `about` are name and value of the lines at the top, the first the title."""
    title = next(iter(about.values()), "")
    data = json.dumps(_content(result, about), separators=(",", ":"))
    for sign in "<>&":  # a file named `</script>` must not end the script
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    parts = {"title": html.escape(f"Sparsity: {title}"), "data": data}
    text = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def _content(result: Inspection, about: Mapping[str, str]) -> dict[str, Any]:
    colors = colormaps["inferno"](range(256), bytes=True)[:, :3]
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(result.image, cv2.COLOR_RGB2BGR))[1]
    joints = zip(result.skeleton.names, result.joints.tolist(), result.scores.tolist(), strict=True)
    return {
        "about": list(about.items()),
        "image": "data:image/jpeg;base64," + _base64(jpeg),
        "size": result.image.shape[1::-1],
        "grid": result.grid,
        "colors": colors.tolist(),
        "removesTokens": result.removes_tokens,
        "joints": [
            {
                "name": name.replace("_", " "),
                "color": color_of(name),
                "x": round(x + 0.5, 2),  # a canvas counts from the edge of a pixel
                "y": round(y + 0.5, 2),
                "score": round(score, 4),
            }
            for name, (x, y), score in joints
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
