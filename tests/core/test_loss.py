"""The loss: its weights, and hard keypoint mining."""

import numpy as np
import pytest
import torch

from lib.config import get_cfg
from lib.core.loss import JointsMSELoss, build_loss
from lib.dataset.skeleton import MPII


def heatmaps(seed: int) -> torch.Tensor:
    return torch.rand(3, 16, 4, 5, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_half_the_mean_square_over_joints_with_weight() -> None:
    output, target = heatmaps(0), heatmaps(1)
    weight = torch.ones(3, 16)
    plain = JointsMSELoss()(output, target, weight)
    assert plain.item() == pytest.approx(0.5 * (output - target).square().mean().item())
    weight[1, 4] = 0
    changed = output.clone()
    changed[1, 4] = 1e3
    assert JointsMSELoss()(changed, target, weight) == JointsMSELoss()(output, target, weight)
    unweighted = JointsMSELoss(use_target_weight=False)
    assert unweighted(changed, target, weight) > 100 * plain


def test_ohkm_uses_only_the_joints_with_the_largest_loss() -> None:
    output, target, weight = heatmaps(0), heatmaps(1), torch.ones(3, 16)
    each = 0.5 * (output - target).square().mean(dim=(2, 3)).numpy()
    expected = np.sort(each, axis=1)[:, -5:].mean()
    assert JointsMSELoss(topk=5)(output, target, weight).item() == pytest.approx(expected)


def test_joint_weights_multiply_the_heatmaps() -> None:
    cfg = get_cfg()
    cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT = True
    output, target = heatmaps(0), heatmaps(1)
    weights = torch.tensor(MPII.joint_weights)[:, None, None]
    expected = 0.5 * (weights * (output - target)).square().mean()
    loss = build_loss(cfg, MPII)(output, target, torch.ones(3, 16))
    torch.testing.assert_close(loss, expected)
    assert weights[[10, 15]].min() > weights[[6, 7]].max()  # wrists, pelvis and thorax
