"""The networks by name. To add one, write a `ModelSpec` and name it in `MODELS`."""

from dataclasses import replace

from yacs.config import CfgNode

from lib.config.check import check_name
from lib.models.simple_baseline import POSE_HRNET, SIMPLE_BASELINE
from lib.models.spec import ModelSpec, PoseNetwork
from lib.models.tokenpose_spec import TOKENPOSE

__all__ = ["MODELS", "ModelSpec", "PoseNetwork", "build_model", "check_model", "model_spec"]

MODELS: dict[str, ModelSpec] = {
    "pose_tokenpose_s": TOKENPOSE,
    "pose_tokenpose_t": TOKENPOSE,
    "pose_tokenpose_b": TOKENPOSE,
    "pose_tokenpose_l": TOKENPOSE,
    "pose_hrnet": POSE_HRNET,
    "pose_resnet": SIMPLE_BASELINE,
}


def build_model(cfg: CfgNode) -> PoseNetwork:
    """Build the network that `MODEL` describes, on the CPU, in training mode, with random weights.

    It takes images [B, 3, H, W], float, normalised with its `mean` and `std`, and gives heatmaps
    [B, J, h, w]. UserError names the key that is wrong.
    """
    check_model(cfg)
    spec = model_spec(cfg)
    model = spec.build(cfg)
    own = model.published_names.rename  # that depend on its configuration
    model.published_names = replace(spec.names, rename=(*own, *spec.names.rename))
    return model


def check_model(cfg: CfgNode) -> CfgNode:
    """Return `cfg`; UserError if the network that it names cannot be built."""
    model_spec(cfg).check(cfg)
    return cfg


def model_spec(cfg: CfgNode) -> ModelSpec:
    """Return the spec of MODEL.NAME; UserError if there is none."""
    check_name(cfg, "MODEL.NAME", MODELS)
    return MODELS[cfg.MODEL.NAME]
