"""The optimizer and its learning rate schedule."""

import bisect
import math

from timm.optim import create_optimizer_v2
from torch import optim
from yacs.config import CfgNode

from lib.models import PoseNetwork, model_spec


def build_optimizer(cfg: CfgNode, model: PoseNetwork) -> optim.Optimizer:
    """Build `TRAIN.OPTIMIZER`; as in HRNet, `adam` has no weight decay."""
    train = cfg.TRAIN
    parameters = list(model.parameters())  # from a module timm would make groups of its own
    if train.OPTIMIZER == "sgd":
        # timm's sgd is always Nesterov's
        opt = "nesterov" if train.NESTEROV else "momentum"
        return create_optimizer_v2(
            parameters, opt=opt, lr=train.LR, momentum=train.MOMENTUM, weight_decay=train.WD
        )
    is_adamw = train.OPTIMIZER == "adamw"
    return create_optimizer_v2(
        model_spec(cfg).parameter_groups(model, cfg) if is_adamw else parameters,
        opt=train.OPTIMIZER,
        lr=train.LR,
        weight_decay=train.WD if is_adamw else 0.0,
        eps=train.ADAM_EPS,
        fused=True,
    )


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
