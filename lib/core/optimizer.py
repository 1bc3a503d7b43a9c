"""The optimizer and its learning rate schedule."""

import bisect
import math

from torch import optim
from yacs.config import CfgNode

from lib.models import PoseNetwork, model_spec


def build_optimizer(cfg: CfgNode, model: PoseNetwork) -> optim.Optimizer:
    """Build `TRAIN.OPTIMIZER`; as in HRNet, `adam` has no weight decay."""
    train = cfg.TRAIN
    if train.OPTIMIZER == "sgd":
        return optim.SGD(
            model.parameters(), lr=train.LR, momentum=train.MOMENTUM, weight_decay=train.WD,
            nesterov=train.NESTEROV,
        )  # fmt: skip
    if train.OPTIMIZER == "adamw":
        groups = model_spec(cfg).parameter_groups(model, cfg)
        return optim.AdamW(groups, lr=train.LR, eps=train.ADAM_EPS, fused=True)
    return optim.Adam(model.parameters(), lr=train.LR, eps=train.ADAM_EPS, fused=True)


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
