"""The networks by name."""

import difflib

from torch import nn
from yacs.config import CfgNode

from lib.models.tokenpose import build_tokenpose_s
from lib.utils.errors import UserError

MODELS = {"pose_tokenpose_s": build_tokenpose_s}


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the network that `MODEL` describes, on the CPU, in training mode.

    It takes images [B, 3, H, W], float, ImageNet-normalised, and gives heatmaps [B, J, h, w].
    UserError where no network has the name `MODEL.NAME`.
    """
    name = cfg.MODEL.NAME
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 1, 0.0)[0]
        known = ", ".join(MODELS)
        raise UserError(f"MODEL.NAME: {name!r} is not a network here ({known}); use {near!r}?")
    return MODELS[name](cfg)
