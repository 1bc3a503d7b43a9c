"""The loss, the rate, and the way from heatmaps back to the picture."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.core.inference import estimate, normalise, to_image
from lib.core.loss import HeatmapLoss, build_loss
from lib.core.optimizer import build_optimizer, build_schedule
from lib.core.tracing import FromPixels
from lib.dataset.skeleton import COCO, MPII
from lib.dataset.transforms import crop_matrix, transform_points
from lib.models import build_model


def maps(seed: int) -> torch.Tensor:
    return torch.rand(3, 16, 4, 5, generator=torch.Generator().manual_seed(seed))


def test_loss_is_half_the_mean_square_of_the_joints_that_count() -> None:
    output, target = maps(0), maps(1)
    weight = torch.ones(3, 16)
    plain = HeatmapLoss()(output, target, weight)
    assert plain.item() == pytest.approx(0.5 * (output - target).square().mean().item())
    weight[1, 4] = 0
    spoiled = output.clone()
    spoiled[1, 4] = 1e3
    assert HeatmapLoss()(spoiled, target, weight) == HeatmapLoss()(output, target, weight)
    unweighted = HeatmapLoss(use_target_weight=False)
    assert unweighted(spoiled, target, weight) > 100 * plain


def test_hard_mining_counts_the_hardest_joints_of_each_person() -> None:
    output, target, weight = maps(0), maps(1), torch.ones(3, 16)
    each = 0.5 * (output - target).square().mean(dim=(2, 3)).numpy()
    wanted = np.sort(each, axis=1)[:, -5:].mean()
    assert HeatmapLoss(hardest=5)(output, target, weight).item() == pytest.approx(wanted)


def test_outer_joints_can_count_more() -> None:
    cfg = get_cfg()
    cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT = True
    loss = build_loss(cfg, MPII)
    weights = [1.5, 1.2, 1, 1, 1.2, 1.5, 1, 1, 1, 1, 1.5, 1.2, 1, 1, 1.2, 1.5]
    assert loss.joint_weights.tolist() == pytest.approx(weights)
    family = [1, 1, 1, 1, 1, 1, 1, 1.2, 1.2, 1.5, 1.5, 1, 1, 1.2, 1.2, 1.5, 1.5]
    assert COCO.joint_weights == family
    output, target = maps(0), maps(1)
    each = 0.5 * (output - target).square().mean(dim=(0, 2, 3))
    wanted = (each * torch.tensor(weights).square()).mean().item()
    assert loss(output, target, torch.ones(3, 16)).item() == pytest.approx(wanted)


def rates(cfg: CfgNode, steps_per_epoch: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.TRAIN.LR)
    schedule = build_schedule(cfg, optimizer, steps_per_epoch)
    found = []
    for _ in range(cfg.TRAIN.END_EPOCH * steps_per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_rate_drops_at_its_epochs() -> None:
    cfg = get_cfg()
    cfg.TRAIN.LR, cfg.TRAIN.LR_STEP, cfg.TRAIN.END_EPOCH = 0.5, [2, 3], 4
    assert rates(cfg, 3) == pytest.approx([0.5] * 6 + [0.05] * 3 + [0.005] * 3)


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    cfg = get_cfg()
    cfg.TRAIN.LR, cfg.TRAIN.LR_END, cfg.TRAIN.WARMUP_STEPS = 1.0, 0.1, 4
    cfg.TRAIN.LR_SCHEDULER, cfg.TRAIN.END_EPOCH = "CosineAnnealingLR", 2
    found = rates(cfg, 10)
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert found[12] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert all(a > b for a, b in pairwise(found[4:]))
    assert found[-1] > 0.1


def test_adam_decays_nothing_and_adamw_spares_what_has_no_direction(
    small_cfg: Callable[..., CfgNode],
) -> None:
    cfg = small_cfg()
    model = build_model(cfg)
    cfg.TRAIN.OPTIMIZER = "adam"
    assert build_optimizer(cfg, model).param_groups[0]["weight_decay"] == 0
    cfg.TRAIN.OPTIMIZER = "adamw"
    optimizer = build_optimizer(cfg, model)
    decayed = {id(w) for w in optimizer.param_groups[0]["params"]}
    kept = {id(w) for w in optimizer.param_groups[1]["params"]}
    assert len(decayed) + len(kept) == len(list(model.parameters()))
    for name, weight in model.named_parameters():
        plain = name.endswith("bias") or "norm" in name or "bn" in name or "tokens" in name
        plain = plain or name in ("head.0.weight", "stem.layer1.0.downsample.1.weight")
        assert id(weight) in (kept if plain else decayed), name


def test_pixels_become_what_imagenet_networks_expect() -> None:
    image = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = ((image / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(normalise(image), wanted, atol=1e-5, rtol=1e-5)


def test_the_mirror_picture_is_asked_too_and_mirrored_back(
    small_cfg: Callable[..., CfgNode],
) -> None:
    model = FromPixels(build_model(small_cfg())).eval()
    images = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        both = estimate(model, images, MPII.flip_order)
        plain = estimate(model, images)
        mirrored = estimate(model, images.flip(2))[:, MPII.flip_order].flip(3)
        swapped = estimate(model, images.flip(2), MPII.flip_order)
    torch.testing.assert_close(both, (plain + mirrored) / 2)
    torch.testing.assert_close(swapped[:, MPII.flip_order].flip(3), both)


def test_joints_go_back_to_where_they_came_from() -> None:
    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 500, (4, 16, 2))
    center, scale = rng.uniform(200, 300, (4, 2)), rng.uniform(1, 3, (4, 1)).repeat(2, 1)
    size = (48, 64)
    cells = [
        transform_points(j, crop_matrix(c, s, 0.0, size))
        for j, c, s in zip(joints, center, scale, strict=True)
    ]
    np.testing.assert_allclose(to_image(np.stack(cells), center, scale, size), joints, atol=1e-9)


def test_a_run_that_begins_later_has_the_later_rate() -> None:
    cfg = get_cfg()
    cfg.TRAIN.LR, cfg.TRAIN.LR_STEP = 0.5, [2, 3]
    cfg.TRAIN.BEGIN_EPOCH, cfg.TRAIN.END_EPOCH = 2, 4
    assert rates(cfg, 3)[:6] == pytest.approx([0.05] * 3 + [0.005] * 3)
