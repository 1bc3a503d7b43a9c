"""Optimizer and learning rate schedule."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.core.optimizer import build_optimizer, build_scheduler
from lib.models import build_model


def learning_rates(cfg: CfgNode, steps_per_epoch: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.TRAIN.LR)
    scheduler = build_scheduler(cfg, optimizer, steps_per_epoch)
    values = []
    for _ in range((cfg.TRAIN.END_EPOCH - cfg.TRAIN.BEGIN_EPOCH) * steps_per_epoch):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("begin", [0, 2])
def test_the_learning_rate_drops_at_its_epochs(begin: int) -> None:
    cfg = get_cfg()
    cfg.TRAIN.LR, cfg.TRAIN.LR_STEP = 0.5, [2, 3]
    cfg.TRAIN.BEGIN_EPOCH, cfg.TRAIN.END_EPOCH = begin, 4
    expected = [0.5] * 6 + [0.05] * 3 + [0.005] * 3
    assert learning_rates(cfg, 3) == pytest.approx(expected[3 * begin :])


def test_the_learning_rate_warms_up_then_follows_a_cosine() -> None:
    cfg = get_cfg()
    cfg.TRAIN.LR, cfg.TRAIN.LR_END, cfg.TRAIN.WARMUP_STEPS = 1.0, 0.1, 4
    cfg.TRAIN.LR_SCHEDULER, cfg.TRAIN.END_EPOCH = "CosineAnnealingLR", 2
    values = learning_rates(cfg, 10)
    assert values[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert values[12] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert all(a > b for a, b in pairwise(values[4:]))
    assert values[-1] > 0.1


@pytest.mark.parametrize("decay", [0.05, 0.0])
def test_adam_has_no_weight_decay_and_adamw_none_for_norms_biases_and_tokens(
    small_cfg: Callable[..., CfgNode], decay: float
) -> None:
    cfg = small_cfg()
    model = build_model(cfg)
    cfg.TRAIN.OPTIMIZER, cfg.TRAIN.WD = "adam", decay
    assert build_optimizer(cfg, model).param_groups[0]["weight_decay"] == 0
    cfg.TRAIN.OPTIMIZER = "adamw"
    optimizer = build_optimizer(cfg, model)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [decay, 0]
    decayed, kept = ({id(w) for w in group["params"]} for group in optimizer.param_groups)
    assert len(decayed) + len(kept) == len(list(model.parameters()))
    for name, weight in model.named_parameters():
        has_direction = weight.ndim > 1 and "tokens" not in name and "position" not in name
        assert id(weight) in (decayed if has_direction else kept), name
