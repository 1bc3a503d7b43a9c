"""An inspection from a checkpoint and a picture to files: the page, and pictures beside it."""

import logging
from pathlib import Path

import torch

from lib.core.inspection.gather import Box, inspect
from lib.core.inspection.page import page
from lib.core.inspection.pictures import pictures
from lib.core.session import Session
from lib.dataset.media import read_picture
from lib.models import build_model
from lib.utils.checkpoint import load_weights
from lib.utils.drawing import save_image
from lib.utils.errors import UserError
from lib.utils.files import replacing
from lib.utils.text import brief

log = logging.getLogger(__name__)


def inspect_checkpoint(
    session: Session, config: str, image: str, box: Box | None = None, out: Path | None = None
) -> Path:
    """Look at how the session's network finds the person in a picture; the page that tells it.

    The weights are those of `TEST.MODEL_FILE`, or the run's own. Writes to `out`, by default
    `inspect/<the picture's name>` in the run's folder. UserError names what cannot be read.
    """
    cfg = session.cfg
    if session.world.size > 1:
        raise UserError("tools/inspect_sparsity.py is one process: start it without torchrun")
    photograph = read_picture(image)
    model = build_model(cfg)
    file = session.model_file
    load_weights(model, file)
    model.to(session.world.device, memory_format=torch.channels_last)
    seen = inspect(cfg, model, photograph, box)
    about = {
        "picture": brief(Path(image).name),
        "configuration": brief(Path(config).stem),
        "checkpoint": brief(str(file)),
        "PRUNE": seen.prune,
        "person": "the whole picture" if box is None else "box " + ",".join(f"{x:g}" for x in box),
        "network sees": "{}×{} pixels".format(*seen.image_size),
    }
    own = session.folder / "inspect" / _folder_name(Path(image).stem)
    drawn = pictures(seen)
    for name, rgb in drawn.items():
        save_image((out or own) / name, rgb)
    if out is None:  # of another way of pruning, perhaps
        for old in set(own.glob("*.png")) - {own / name for name in drawn}:
            old.unlink()
    out = out or own
    text = page(seen, about)
    with replacing(out / "index.html") as aside:
        aside.write_text(text, encoding="utf-8")
    log.info("%d joints, %.2f MB: %s", len(seen.scores), len(text) / 1e6, out / "index.html")
    return out / "index.html"


def _folder_name(stem: str) -> str:
    """A picture's name as the name of a folder that can be printed, and that is not `.` or `..`."""
    return "".join(char if char.isprintable() else "_" for char in stem).strip(".") or "picture"
