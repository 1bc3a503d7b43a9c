"""The plots of an inspection show its numbers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from lib.analysis.inspection.gather import Inspection, inspect
from lib.analysis.inspection.plots import attention_plot, plots, stage_plot
from lib.dataset.skeleton import COCO, MPII, Skeleton
from lib.models import build_model

MakeCfg = Callable[..., CfgNode]


def inspected(small_cfg: MakeCfg, skeleton: Skeleton = MPII, **sparsity: object) -> Inspection:
    torch.manual_seed(0)
    cfg = small_cfg(NUM_JOINTS=skeleton.num_joints, **sparsity)
    cfg.DATASET.SKELETON = skeleton.name
    result = inspect(cfg, build_model(cfg), np.full((60, 80, 3), 90, np.uint8), None)
    return replace(result, image=np.full_like(result.image, 50))  # no dark border


def by_patch(image: np.ndarray) -> np.ndarray:
    """Mean brightness of the 4×6 patches, [HW]."""
    return image.reshape(6, 80, 4, 160, 3).mean(axis=(1, 3, 4)).ravel()


def test_a_token_stage_covers_exactly_the_pruned_patches(small_cfg: MakeCfg) -> None:
    result = inspected(small_cfg, PRUNE="token")
    for stage in result.stages:
        differs = (stage_plot(result, stage) != result.image).any(axis=2)
        blocks = differs.reshape(6, 80, 4, 160)
        pruned = stage.attended_by == 0
        assert np.array_equal(blocks.any(axis=(1, 3)).ravel(), pruned)
        assert np.array_equal(blocks.all(axis=(1, 3)).ravel(), pruned)


def test_a_mask_stage_is_paler_where_fewer_tokens_attend(small_cfg: MakeCfg) -> None:
    result = inspected(small_cfg, PRUNE="connection", KEEP_RATIO=0.4)
    stage = result.stages[0]
    order = np.argsort(stage.attended_by, kind="stable")
    brightness = by_patch(stage_plot(result, stage))[order]
    assert (np.diff(brightness) <= 0).all()
    assert brightness[0] > brightness[-1]


def test_the_patch_with_the_largest_weight_is_the_brightest(small_cfg: MakeCfg) -> None:
    result = inspected(small_cfg, PRUNE="token")
    for layer in (0, 2, 4):
        bright, present = by_patch(attention_plot(result, layer, 3)), result.in_sequence(layer)
        order = np.argsort(result.to_visual[layer, 3][present])
        assert (np.diff(bright[present][order]) >= -1).all()
        assert (bright[~present] > 190).all()


@pytest.mark.parametrize("skeleton", [MPII, COCO])
def test_every_joint_and_stage_has_a_plot(skeleton: Skeleton, small_cfg: MakeCfg) -> None:
    drawn = plots(inspected(small_cfg, skeleton, JOINT_HOPS=2, PRUNE="connection"))
    joints = {f"attention_{j:02d}_{name}.png" for j, name in enumerate(skeleton.names)}
    stages = {"stage_1.png", "stage_2.png"}
    assert set(drawn) == {"person.png"} | stages | joints
    dense = plots(inspected(small_cfg, skeleton, JOINT_DEPTH=0, PRUNE="none"))
    assert set(dense) == {"person.png"} | joints
    for image in (*drawn.values(), *dense.values()):
        assert image.dtype == np.uint8
        assert image.ndim == 3
