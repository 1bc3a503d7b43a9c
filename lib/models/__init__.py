"""The networks by name. To add one, write a `ModelSpec` and name it in `MODELS`."""

from yacs.config import CfgNode

from lib.config.check import check_name
from lib.models.simple_baseline import SIMPLE_BASELINE
from lib.models.spec import ModelSpec, PoseNetwork
from lib.models.tokenpose_spec import TOKENPOSE_S

__all__ = ["MODELS", "ModelSpec", "PoseNetwork", "build_model", "check_model", "model_spec"]

MODELS: dict[str, ModelSpec] = {
    "pose_tokenpose_s": TOKENPOSE_S,
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
    model.published_names = spec.names
    return model


def check_model(cfg: CfgNode) -> CfgNode:
    """Return `cfg`; UserError if the network that it names cannot be built."""
    model_spec(cfg).check(cfg)
    return cfg


def model_spec(cfg: CfgNode) -> ModelSpec:
    """Return the spec of MODEL.NAME; UserError if there is none."""
    check_name(cfg, "MODEL.NAME", MODELS)
    return MODELS[cfg.MODEL.NAME]
