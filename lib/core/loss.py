"""Losses between heatmaps."""

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.dataset import Skeleton


class JointsMSELoss(nn.Module):
    """Half the mean squared error of heatmaps.

    With `topk` only the joints of each person with the highest loss count (online hard keypoint
    mining, Chen et al. 2018). `joint_weights` [J] multiply the heatmaps.
    """

    joint_weights: Tensor | None

    def __init__(
        self,
        *,
        use_target_weight: bool = True,
        topk: int | None = None,
        joint_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.topk = topk
        self.register_buffer("joint_weights", joint_weights, persistent=False)

    def forward(self, output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Heatmaps [B, J, h, w] and weights [B, J] -> a scalar; a joint of weight 0 adds 0."""
        loss = 0.5 * (output.float() - target).square().mean(dim=(2, 3))  # [B, J]
        if self.use_target_weight:
            loss = loss * weight.square()  # HRNet weighs both maps, hence the square
        if self.joint_weights is not None:
            loss = loss * self.joint_weights.square()
        if self.topk is not None:
            loss = loss.topk(self.topk, dim=1, sorted=False).values
        return loss.mean()


def build_loss(cfg: CfgNode, skeleton: Skeleton) -> JointsMSELoss:
    """Build the loss of the `LOSS` keys."""
    weights = skeleton.joint_weights if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT else None
    return JointsMSELoss(
        use_target_weight=cfg.LOSS.USE_TARGET_WEIGHT,
        topk=cfg.LOSS.TOPK if cfg.LOSS.USE_OHKM else None,
        joint_weights=None if weights is None else torch.tensor(weights),
    )
