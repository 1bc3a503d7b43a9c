"""HRNet as a backbone: its branch of the highest resolution.

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019.
"""

from collections.abc import Sequence
from typing import Any

from timm.models.hrnet import HighResolutionNet, block_types_dict
from torch import Tensor
from yacs.config import CfgNode

from lib.config.check import config_error
from lib.models.stem import Stem
from lib.utils.errors import UserError

_COUNTS = ("NUM_MODULES", "NUM_BLOCKS", "NUM_CHANNELS")  # keys of a stage in YAML files


class HRNet(Stem):
    """The stem, then `stages` with a branch more each: [B, 3, H, W] -> [B, channels, H/4, W/4].

    Their modules are timm's, their names the published ones. The last gives only its first branch.
    """

    def __init__(self, stages: Sequence[dict[str, Any]]) -> None:
        """`stages` in the words of timm's configurations of HRNet."""
        super().__init__()
        self.last = len(stages) + 1  # stages are counted from 2; the first is the stem's layer
        before = [self.channels]
        parts: Any = HighResolutionNet  # these methods of it read nothing of `self`
        for number, stage in enumerate(stages, 2):
            block: Any = block_types_dict[stage["block_type"]]
            widths = [block.expansion * channels for channels in stage["num_channels"]]
            transition = parts._make_transition_layer(self, before, widths)
            modules, before = parts._make_stage(self, stage, widths, number < self.last)
            self.add_module(f"transition{number - 1}", transition)
            self.add_module(f"stage{number}", modules)
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
    stages = []
    for branches, key in enumerate(stage_keys(cfg), 2):
        stage = cfg.MODEL.EXTRA[key]
        counts = {name.lower(): stage[name] for name in _COUNTS}
        kinds = {"num_branches": branches, "block_type": stage["BLOCK"], "fuse_method": "SUM"}
        stages.append(counts | kinds)
    return HRNet(stages)


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
    counts = dict(zip(_COUNTS, (0, branches, branches), strict=True))
    only: dict[str, list[Any]] = {
        "NUM_BRANCHES": [branches], "FUSE_METHOD": ["SUM"], "BLOCK": [*block_types_dict],
    }  # fmt: skip
    return (
        {*counts, "BLOCK"} <= stage.keys() <= {*only, *counts}
        and all(value in only.get(name, [value]) for name, value in stage.items())
        and all(_are_counts(stage[name], length) for name, length in counts.items())
    )


def _are_counts(value: Any, length: int) -> bool:
    """Whether a value is a number from 1 on or, for a `length`, a list of so many."""
    values = value if length and isinstance(value, list | tuple) else [value]
    return len(values) == max(1, length) and all(type(n) is int and n > 0 for n in values)
