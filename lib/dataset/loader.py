"""Batches of samples: their order, and the worker processes that load them."""

import atexit
import math
import multiprocessing
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from yacs.config import CfgNode

from lib.dataset.pose_dataset import PoseDataset
from lib.utils.errors import UserError


@dataclass(eq=False)
class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Training order: batches of (epoch, index), so that workers know the epoch as well.

    The order depends only on (seed, epoch). The samples of a step are split among
    `world_size` processes as among the micro-batches of one process with as many TRAIN.ACCUMULATE
    (except in a short last step). All processes get equally many samples; the first ones may be
    repeated for that.
    """

    length: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    step: int = 0

    def set_state(self, epoch: int, step: int = 0) -> None:
        """Start the next iteration in `epoch` at batch `step` of this process."""
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, also if the next one starts later."""
        return math.ceil(math.ceil(self.length / self.world_size) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, size = self.epoch, self.batch_size * self.world_size
        order = np.arange(self.length)
        if self.shuffle:
            # The spawn key makes these numbers independent of those that augment the samples.
            sequence = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
            order = np.random.default_rng(sequence).permutation(self.length)
        order = np.resize(order, math.ceil(self.length / self.world_size) * self.world_size)
        steps = [order[i * size : (i + 1) * size] for i in range(self.step, len(self))]
        batches = (step.reshape(self.world_size, -1)[self.rank].tolist() for step in steps)
        return iter([[(epoch, index) for index in batch] for batch in batches])


class PoseLoader(DataLoader):
    """A DataLoader of dicts of tensors that raises its workers' UserErrors as they were."""

    def __iter__(self) -> Any:
        try:
            for batch in super().__iter__():
                yield {name: torch.as_tensor(value) for name, value in batch.items()}
        except UserError as error:
            self.close()
            # The text contains the worker's traceback, whose last line is the error itself.
            line = str(error).strip().splitlines()[-1]
            raise UserError(line.removeprefix(f"{UserError.__module__}.UserError: ")) from None
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            if "in DataLoader worker process" in str(error):  # raised by the dataset
                raise
            raise UserError(
                f"a loader process died while it sent a batch ({error or 'no answer'}): "
                "if memory ran out, lower WORKERS"
            ) from None

    def close(self) -> None:
        """Stop the workers, which ignore signals."""
        iterator: Any = self._iterator
        if iterator is not None and self.num_workers > 0:
            iterator._shutdown_workers()
        self._iterator = None


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor | np.ndarray]:
    """Stack samples: images as a tensor, the rest as arrays.

    Workers send each tensor in a shared file, which costs more than pickling small arrays.
    """
    batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return batch | {"image": torch.from_numpy(batch["image"])}


def build_train_loader(
    cfg: CfgNode, dataset: PoseDataset, rank: int = 0, world_size: int = 1
) -> PoseLoader:
    """Return shuffled batches of `dataset`, dicts of tensors, for this process of `world_size`.

    A batch is that of one step: TRAIN.ACCUMULATE micro-batches. Call
    `loader.batch_sampler.set_state(epoch, step)` before each iteration.
    """
    sampler = EpochBatchSampler(
        len(dataset), cfg.TRAIN.BATCH_SIZE_PER_GPU * cfg.TRAIN.ACCUMULATE, seed=cfg.SEED,
        shuffle=cfg.TRAIN.SHUFFLE, rank=rank, world_size=world_size,
    )  # fmt: skip
    return PoseLoader(dataset, batch_sampler=sampler, **_worker_options(cfg))


def build_test_loader(
    cfg: CfgNode, dataset: PoseDataset, rank: int = 0, world_size: int = 1
) -> PoseLoader:
    """Return this process's share of `dataset` in batches, in order, with no sample twice."""
    length, size = len(dataset), cfg.TEST.BATCH_SIZE_PER_GPU
    indices = range(length * rank // world_size, length * (rank + 1) // world_size)
    return PoseLoader(dataset, batch_size=size, sampler=indices, **_worker_options(cfg))


def _worker_options(cfg: CfgNode) -> dict[str, Any]:
    warnings.filterwarnings("ignore", "This DataLoader will create")  # the session says it once
    return {
        "num_workers": cfg.WORKERS,
        "collate_fn": collate,
        "persistent_workers": cfg.WORKERS > 0,
        "pin_memory": cfg.PIN_MEMORY and torch.cuda.is_available(),
        "worker_init_fn": _init_worker,
        "generator": torch.Generator(),  # otherwise each epoch draws from torch's global state
    }


def _init_worker(worker: int) -> None:
    """Use one thread, and leave signals to the main process, which stops the workers.

    Schedulers send SIGTERM to every process of a job, and the main one still needs its workers.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _kill_workers() -> None:
    """Kill remaining workers: multiprocessing would send SIGTERM, which they ignore, and wait."""
    if hasattr(signal, "SIGCHLD"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report a failure
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
