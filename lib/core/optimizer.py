"""The optimizer and its learning rate schedule."""

import bisect
import math
from typing import Any

from torch import nn, optim
from yacs.config import CfgNode

from lib.models import PoseNetwork, model_spec
from lib.utils.errors import UserError


def build_optimizer(cfg: CfgNode, model: PoseNetwork) -> optim.Optimizer:
    """Build `TRAIN.OPTIMIZER`; as in HRNet, `adam` has no weight decay."""
    train = cfg.TRAIN
    if train.OPTIMIZER == "adamw":
        groups = model_spec(cfg).parameter_groups(model, cfg)
    else:
        groups = [{"params": [weight for weight in model.parameters() if weight.requires_grad]}]
    if train.BACKBONE_LR:
        groups = _split_backbone(groups, model, train.BACKBONE_LR)
    if train.OPTIMIZER == "sgd":
        return optim.SGD(
            groups, lr=train.LR, momentum=train.MOMENTUM, weight_decay=train.WD,
            nesterov=train.NESTEROV,
        )  # fmt: skip
    if train.OPTIMIZER == "adamw":
        return optim.AdamW(groups, lr=train.LR, eps=train.ADAM_EPS, fused=True)
    return optim.Adam(groups, lr=train.LR, eps=train.ADAM_EPS, fused=True)


def _split_backbone(
    groups: list[dict[str, Any]], model: PoseNetwork, lr: float
) -> list[dict[str, Any]]:
    """Split parameter groups; those of the backbone, the last ones, get the learning rate `lr`."""
    module = getattr(model, "backbone", None)
    if not isinstance(module, nn.Module):
        raise UserError("TRAIN.BACKBONE_LR: this network has no backbone; remove the key")
    backbone = set(module.parameters())
    others, own = [], []
    for group in groups:
        weights = group["params"]
        others.append(group | {"params": [w for w in weights if w not in backbone]})
        own.append(group | {"params": [w for w in weights if w in backbone], "lr": lr})
    return [group for group in (*others, *own) if group["params"]]


def build_scheduler(
    cfg: CfgNode, optimizer: optim.Optimizer, steps_per_epoch: int
) -> optim.lr_scheduler.LambdaLR:
    """Build `TRAIN.LR_SCHEDULER`, to be stepped after every training step, from BEGIN_EPOCH on."""
    train = cfg.TRAIN
    begin, total = train.BEGIN_EPOCH * steps_per_epoch, train.END_EPOCH * steps_per_epoch
    end = train.LR_END / train.LR

    def factor(step: int) -> float:
        if step < train.WARMUP_STEPS:
            return (step + 1) / train.WARMUP_STEPS
        step += begin
        if train.LR_SCHEDULER == "CosineAnnealingLR":
            done = (step - train.WARMUP_STEPS) / max(1, total - train.WARMUP_STEPS)
            return end + (1 - end) * (1 + math.cos(math.pi * min(1.0, done))) / 2
        drops = bisect.bisect_right(train.LR_STEP, step // steps_per_epoch)
        return train.LR_FACTOR**drops

    return optim.lr_scheduler.LambdaLR(optimizer, factor)
