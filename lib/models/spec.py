"""What the project needs to know of a network besides its modules."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from yacs.config import CfgNode

from lib.config.check import Ignored, config_error
from lib.models.backbone import Channels3
from lib.utils.checkpoint import PublishedNames


class PoseNetwork(nn.Module):
    """A network: images [B, 3, H, W] -> heatmaps [B, J, h, w].

    Images are normalised with `mean` and `std`, of RGB in the range 0 to 1. `build_model` sets
    `published_names`.
    """

    mean: Channels3 = IMAGENET_DEFAULT_MEAN
    std: Channels3 = IMAGENET_DEFAULT_STD
    published_names: PublishedNames = PublishedNames()


def decay_groups(model: PoseNetwork, cfg: CfgNode) -> list[dict[str, Any]]:
    """Parameter groups with TRAIN.WD for weights, and without for norms, biases and tokens."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    # Tokens are [1, N, D]. timm's groups are others if TRAIN.WD is 0, which breaks a resume.
    decayed = [weight for weight in weights if weight.ndim > 1 and weight.shape[0] > 1]
    kept = [weight for weight in weights if weight.ndim <= 1 or weight.shape[0] == 1]
    return [
        {"params": decayed, "weight_decay": cfg.TRAIN.WD},
        {"params": kept, "weight_decay": 0.0},
    ]


def check_extra(cfg: CfgNode, *known: str) -> None:
    """UserError if MODEL.EXTRA has a key that is neither `known` nor PRETRAINED_LAYERS."""
    for name in cfg.MODEL.EXTRA:
        if name not in (*known, "PRETRAINED_LAYERS"):
            listed = ", ".join(known)
            text = f"{cfg.MODEL.NAME} has no such key; it has {listed} and PRETRAINED_LAYERS"
            raise config_error(cfg, f"MODEL.EXTRA.{name}", text)


@dataclass(frozen=True)
class ModelSpec:
    """A network of `lib.models.MODELS`.

    `build` makes it from a configuration. `check` raises UserError at an impossible value and runs
    right after the YAML file is loaded. `ignored` are keys that the network does not read. `names`
    turns published names of weights into its own. `export_keys` are the keys in which an exported
    file must agree with the configuration. `parameter_groups` are what adamw decays.
    """

    build: Callable[[CfgNode], PoseNetwork]
    check: Callable[[CfgNode], None] = lambda cfg: None
    ignored: tuple[Ignored, ...] = ()
    names: PublishedNames = field(default_factory=PublishedNames)
    export_keys: Callable[[CfgNode], tuple[str, ...]] = lambda cfg: ()
    parameter_groups: Callable[[PoseNetwork, CfgNode], list[dict[str, Any]]] = decay_groups
