"""Processes and devices: rank, world size, and the collectives that training needs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lib.utils.errors import UserError


@dataclass(frozen=True)
class Distributed:
    """The rank of this process among those that train together, and its device."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0


def init_distributed(gpus: tuple[int, ...] = (0,)) -> Distributed:
    """Choose the device; under torchrun also join the process group.

    Without torchrun the first of `gpus` is used, or the CPU if there is no GPU. UserError if there
    is no such GPU.
    """
    device = choose_device(int(os.environ.get("LOCAL_RANK", gpus[0])))
    if "LOCAL_RANK" not in os.environ:
        return Distributed(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    return Distributed(device, dist.get_rank(), dist.get_world_size())


def choose_device(gpu: int) -> torch.device:
    """Return the GPU of that index, or the CPU if there is none; UserError if only others exist."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if gpu >= torch.cuda.device_count():
        raise UserError(
            f"there is no GPU {gpu}, only {torch.cuda.device_count()} from 0 on: "
            "change GPUS, or torchrun's --nproc_per_node"
        )
    return torch.device("cuda", gpu)


def cleanup_distributed(distributed: Distributed) -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def describe(distributed: Distributed) -> str:
    """Return device, threads and rank as text for the log."""
    if distributed.device.type == "cuda":
        name = torch.cuda.get_device_name(distributed.device)
    else:
        name = f"the CPU, {torch.get_num_threads()} threads"
    if distributed.world_size == 1:
        return name
    return f"{name}, process {distributed.rank} of {distributed.world_size}"


def wrap_ddp(model: nn.Module, distributed: Distributed) -> nn.Module:
    """Return the model in DistributedDataParallel; unchanged if there is one process."""
    if distributed.world_size == 1:
        return model
    devices = [distributed.device] if distributed.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


def unwrap(model: nn.Module) -> nn.Module:
    """Undo `wrap_ddp`."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def all_reduce_any(flags: Sequence[bool], distributed: Distributed) -> list[bool]:
    """Return for each flag whether any process set it; the same in all processes."""
    if distributed.world_size == 1:
        return list(flags)
    values = torch.tensor([float(flag) for flag in flags], device=distributed.device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return [value > 0 for value in values.tolist()]


def broadcast_buffers(model: nn.Module, distributed: Distributed) -> None:
    """Give all processes the buffers of the main one, such as batch norm's statistics."""
    if distributed.world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def all_gather(value: Any, distributed: Distributed) -> list[Any]:
    """Return the values of all processes, in the order of their ranks, to each of them."""
    if distributed.world_size == 1:
        return [value]
    values: list[Any] = [None] * distributed.world_size
    dist.all_gather_object(values, value)
    return values
