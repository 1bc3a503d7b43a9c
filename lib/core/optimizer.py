"""The optimizer, and how its rate goes over a run."""

import bisect
import math

from torch import nn, optim
from yacs.config import CfgNode


def build_optimizer(cfg: CfgNode, model: nn.Module) -> optim.Optimizer:
    """Build `TRAIN.OPTIMIZER`; as in the HRNet family, `adam` takes no weight decay."""
    train = cfg.TRAIN
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if train.OPTIMIZER == "adam":
        return optim.Adam(weights, lr=train.LR, eps=train.ADAM_EPS, fused=True)
    if train.OPTIMIZER == "adamw":
        # Norms, biases and tokens are not decayed: they have no direction to shrink along.
        decayed = [weight for weight in weights if weight.ndim > 1 and weight.shape[0] > 1]
        kept = [weight for weight in weights if not (weight.ndim > 1 and weight.shape[0] > 1)]
        groups = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
        return optim.AdamW(
            groups, lr=train.LR, eps=train.ADAM_EPS, weight_decay=train.WD, fused=True
        )
    return optim.SGD(
        weights,
        lr=train.LR,
        momentum=train.MOMENTUM,
        weight_decay=train.WD,
        nesterov=train.NESTEROV,
    )


def build_schedule(
    cfg: CfgNode, optimizer: optim.Optimizer, steps_per_epoch: int
) -> optim.lr_scheduler.LambdaLR:
    """Build `TRAIN.LR_SCHEDULER`, which is stepped once a training step, from BEGIN_EPOCH on."""
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
