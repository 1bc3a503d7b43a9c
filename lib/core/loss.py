"""Losses between heatmaps."""

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.dataset.skeleton import Skeleton


class HeatmapLoss(nn.Module):
    """Half the mean squared difference of heatmaps, over the joints that count.

    `hardest` counts only that many joints of each person, those with the greatest loss (online
    hard keypoint mining, Chen et al. 2018); `joint_weights` [J] makes some joints count more.
    """

    def __init__(
        self,
        *,
        use_target_weight: bool = True,
        hardest: int | None = None,
        joint_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.hardest = hardest
        self.register_buffer("joint_weights", joint_weights, persistent=False)

    def forward(self, output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Heatmaps [B, J, h, w] and weights [B, J] -> a scalar; a joint of weight 0 adds 0."""
        loss = 0.5 * (output.float() - target).square().mean(dim=(2, 3))  # [B, J]
        if self.use_target_weight:
            loss = loss * weight.square()  # the family weighs both maps, hence the square
        if self.joint_weights is not None:
            loss = loss * self.joint_weights.square()
        if self.hardest is not None:
            loss = loss.topk(self.hardest, dim=1, sorted=False).values
        return loss.mean()


def build_loss(cfg: CfgNode, skeleton: Skeleton) -> HeatmapLoss:
    """Build the loss that `LOSS` describes."""
    weights = skeleton.joint_weights if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT else None
    return HeatmapLoss(
        use_target_weight=cfg.LOSS.USE_TARGET_WEIGHT,
        hardest=cfg.LOSS.TOPK if cfg.LOSS.USE_OHKM else None,
        joint_weights=None if weights is None else torch.tensor(weights),
    )
