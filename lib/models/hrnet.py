"""HRNet as a backbone: its branch of the highest resolution.

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from timm.models.hrnet import HighResolutionModule, HighResolutionNet, block_types_dict
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.config.check import config_error
from lib.models.stem import Stem
from lib.utils.errors import UserError


class HRNetStage(NamedTuple):
    """A stage of HRNet, in the words of its YAML files; the lists are by branch."""

    NUM_MODULES: int
    BLOCK: str
    NUM_BLOCKS: Sequence[int]
    NUM_CHANNELS: Sequence[int]


class HRNet(Stem):
    """The stem, then `stages` with a branch more each: [B, 3, H, W] -> [B, channels, H/4, W/4].

    Their modules are timm's, their names the published ones. The last gives only its first branch.
    """

    def __init__(self, stages: Sequence[HRNetStage]) -> None:
        super().__init__()
        self.last = len(stages) + 1  # stages are counted from 2; the first is the stem's layer
        before = [self.channels]
        make_transition: Any = HighResolutionNet._make_transition_layer  # reads nothing of self
        for number, stage in enumerate(stages, 2):
            block: Any = block_types_dict[stage.BLOCK]
            widths = [block.expansion * channels for channels in stage.NUM_CHANNELS]
            transition = make_transition(self, before, widths)
            self.add_module(f"transition{number - 1}", transition)
            modules = [
                HighResolutionModule(
                    len(widths), block, tuple(stage.NUM_BLOCKS), [*widths],
                    tuple(stage.NUM_CHANNELS), "SUM",
                    multi_scale_output=number < self.last or index < stage.NUM_MODULES,
                )
                for index in range(1, stage.NUM_MODULES + 1)
            ]  # fmt: skip
            self.add_module(f"stage{number}", nn.Sequential(*modules))
            before = widths
        self.channels = before[0]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalised -> [B, channels, H/4, W/4]."""
        branches = [super().forward(images)]
        for number in range(2, self.last + 1):
            paths = self.get_submodule(f"transition{number - 1}").children()
            # A new branch starts from the one of the lowest resolution.
            ends = branches + branches[-1:] * number
            inputs = [path(x) for path, x in zip(paths, ends, strict=False)]
            branches = self.get_submodule(f"stage{number}")(inputs)
        return branches[0]


def build_hrnet(cfg: CfgNode) -> HRNet:
    """Build HRNet with the stages of MODEL.EXTRA: STAGE2 to STAGE4; TokenPose ends with STAGE3."""
    stages = [cfg.MODEL.EXTRA[key] for key in stage_keys(cfg)]
    return HRNet([HRNetStage(*(stage[name] for name in HRNetStage._fields)) for stage in stages])


def stage_keys(cfg: CfgNode) -> list[str]:
    """Return the keys of the stages in MODEL.EXTRA that the network has."""
    return ["STAGE2", "STAGE3", "STAGE4"][: 3 if cfg.MODEL.NAME == "pose_hrnet" else 2]


def check_hrnet(cfg: CfgNode) -> None:
    """UserError unless MODEL.EXTRA has HRNet's stages, by the keys of its published files."""
    for branches, key in enumerate(stage_keys(cfg), 2):
        stage = cfg.MODEL.EXTRA.get(key)
        if not isinstance(stage, dict) or not _is_stage(stage, branches):
            raise UserError(
                f"MODEL.EXTRA.{key}: HRNet needs NUM_MODULES, NUM_BRANCHES {branches}, BLOCK BASIC "
                f"or BOTTLENECK, FUSE_METHOD SUM; and NUM_BLOCKS, NUM_CHANNELS: {branches} numbers"
            )
    factor = Stem.stride * 2 ** len(stage_keys(cfg))
    if any(side % factor for side in cfg.MODEL.IMAGE_SIZE):
        raise config_error(cfg, "MODEL.IMAGE_SIZE", f"must be divisible by {factor} for HRNet")


def _is_stage(stage: dict[str, Any], branches: int) -> bool:
    counts = {"NUM_MODULES": 0, "NUM_BLOCKS": branches, "NUM_CHANNELS": branches}
    only: dict[str, list[Any]] = {
        "NUM_BRANCHES": [branches], "FUSE_METHOD": ["SUM"], "BLOCK": [*block_types_dict],
    }  # fmt: skip
    return (
        {*HRNetStage._fields} <= stage.keys() <= {*only, *counts}
        and all(value in only.get(name, [value]) for name, value in stage.items())
        and all(_are_counts(stage[name], length) for name, length in counts.items())
    )


def _are_counts(value: Any, length: int) -> bool:
    """Whether a value is a number from 1 on or, for a `length`, a list of so many."""
    values = value if length and isinstance(value, list | tuple) else [value]
    return len(values) == max(1, length) and all(type(n) is int and n > 0 for n in values)
