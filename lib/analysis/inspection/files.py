"""Inspect a checkpoint on an image and write the page."""

from pathlib import Path

import torch

from lib.analysis.inspection.gather import Box, inspect
from lib.analysis.inspection.page import page
from lib.config.check import config_error
from lib.core.session import Session
from lib.dataset.images import read_image
from lib.models import build_model
from lib.models.tokenpose import TokenPose
from lib.utils.checkpoint import load_weights
from lib.utils.errors import UserError
from lib.utils.files import write_bytes
from lib.utils.text import shorten


def inspect_checkpoint(
    session: Session, config: str, image: str, box: Box | None = None, out: Path | None = None
) -> Path:
    """Write the inspection of the session's network on one image; return the path of the page.

    The weights are those of TEST.MODEL_FILE, by default the run's own. The page goes to `out`, by
    default `inspect/<name of the image>` in the run's folder. UserError names what cannot be read,
    and a network without attention.
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
    folder = out or session.folder / "inspect" / _folder_name(Path(image).stem)
    text = page(result, about).encode()
    write_bytes(folder / "index.html", text)
    return folder / "index.html"


def _folder_name(stem: str) -> str:
    """An image's name as the name of a folder that can be printed, and is not `.` or `..`."""
    return "".join(char if char.isprintable() else "_" for char in stem).strip(".") or "image"
