"""Processes and devices: which one this is, and what it must share."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lib.utils.errors import UserError

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """This process among all that train together, and the device it computes on."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0


def join_world(gpus: tuple[int, ...] = (0,)) -> World:
    """Find this process's place and device; under torchrun, meet the others.

    Without torchrun the first of `gpus` is used, or the CPU where there is no GPU. UserError where
    there is no such GPU, or torchrun's variables are incomplete.
    """
    device = choose_device(int(os.environ.get("LOCAL_RANK", gpus[0])))
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if "LOCAL_RANK" in os.environ and missing:
        raise UserError(f"LOCAL_RANK is set, but not {', '.join(missing)}: start with torchrun")
    if "LOCAL_RANK" not in os.environ:
        return World(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    return World(device, dist.get_rank(), dist.get_world_size())


def choose_device(gpu: int) -> torch.device:
    """The GPU of that number, or the CPU where there is none; UserError where others are."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if gpu >= torch.cuda.device_count():
        raise UserError(
            f"there is no GPU {gpu} here, only {torch.cuda.device_count()} from 0 on: "
            "mend GPUS, or torchrun's --nproc_per_node"
        )
    return torch.device("cuda", gpu)


def leave_world(world: World) -> None:
    """Part from the other processes."""
    if world.size > 1:
        dist.destroy_process_group()


def describe(world: World) -> str:
    """Say what this run computes on, in a few words."""
    if world.device.type == "cuda":
        name = torch.cuda.get_device_name(world.device)
    else:
        name = f"the CPU, {torch.get_num_threads()} threads"
    others = f", process {world.rank} of {world.size}" if world.size > 1 else ""
    return f"{name}{others}"


def spread(model: nn.Module, world: World) -> nn.Module:
    """Let the processes share their gradients; a lone process needs nothing."""
    if world.size == 1:
        return model
    devices = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


def any_of(flags: Sequence[bool], world: World) -> list[bool]:
    """For each flag, whether any process raises it; all processes get the same answer."""
    if world.size == 1:
        return list(flags)
    raised = torch.tensor([float(flag) for flag in flags], device=world.device)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [value > 0 for value in raised.tolist()]


def share_buffers(model: nn.Module, world: World) -> None:
    """Give all processes the first one's buffers, batch norm's statistics among them."""
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def gather(value: Any, world: World) -> list[Any]:
    """What each process brings, in the order of their ranks, to all of them."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values
