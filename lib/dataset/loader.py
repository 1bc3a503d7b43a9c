"""Batches: in which order samples come, and the worker processes that make them."""

import atexit
import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from yacs.config import CfgNode

from lib.utils.errors import UserError


class EpochBatchSampler(Sampler):
    """The order of training: batches of (epoch, index), so that workers learn the epoch as well.

    The order derives from (seed, epoch) alone. Of `world_size` processes each takes its part of
    every step's people, the parts that one process with as many TRAIN.ACCUMULATE computes one after
    the other (but in an epoch's last step, if short); all take equally many, for which the first
    samples may come twice.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.set_state(0)

    def set_state(self, epoch: int, step: int = 0) -> None:
        """Let the next round be that of `epoch`, from batch `step` of this process on."""
        self.epoch = epoch
        self.step = step

    def __len__(self) -> int:
        """Return the batches of a whole epoch, also if the next round begins in its middle."""
        return _ceil_divide(_ceil_divide(self.length, self.world_size), self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, size = self.epoch, self.batch_size * self.world_size
        order = self._order(epoch)
        steps = [order[i * size : (i + 1) * size] for i in range(self.step, len(self))]
        own = (step.reshape(self.world_size, -1)[self.rank].tolist() for step in steps)
        return iter([[(epoch, index) for index in batch] for batch in own])

    def _order(self, epoch: int) -> np.ndarray:
        """Return all indices in order, filled up so that the processes have equally many."""
        order = np.arange(self.length)
        if self.shuffle:
            # The spawn key keeps these numbers apart from those that augment the samples.
            sequence = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
            order = np.random.default_rng(sequence).permutation(self.length)
        return np.resize(order, _ceil_divide(self.length, self.world_size) * self.world_size)


def evaluation_order(length: int, rank: int = 0, world_size: int = 1) -> range:
    """Return the indices of one process: in order, each in exactly one process."""
    return range(length * rank // world_size, length * (rank + 1) // world_size)


class PoseLoader(DataLoader):
    """A DataLoader of dicts of tensors; its workers' UserErrors arrive as the line they were."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        try:
            for batch in super().__iter__():
                yield {name: torch.as_tensor(value) for name, value in batch.items()}
        except UserError as error:
            self.close()
            # The worker's traceback comes along in the text; its last line is the error itself.
            line = str(error).strip().splitlines()[-1]
            raise UserError(line.removeprefix(f"{UserError.__module__}.UserError: ")) from None
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            if "in DataLoader worker process" in str(error):  # raised there, by what makes samples
                raise
            raise UserError(
                f"a loader process died while it handed over a batch ({error or 'no answer'}). "
                "If memory ran out, lower WORKERS"
            ) from None

    def close(self) -> None:
        """End the workers, which listen to no signal."""
        if self._iterator is not None and self.num_workers > 0:
            self._iterator._shutdown_workers()
            self._iterator = None


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor | np.ndarray]:
    """Stack samples: pictures as a tensor, the rest, which is small, as arrays.

    Tensors travel from a worker in a shared file each, which costs more than pickling small arrays.
    """
    batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return batch | {"image": torch.from_numpy(batch["image"])}


def build_train_loader(
    cfg: CfgNode, dataset: Dataset, rank: int = 0, world_size: int = 1
) -> PoseLoader:
    """Return shuffled batches of `dataset`, dicts of tensors, for this process of `world_size`.

    A batch is what one step takes, TRAIN.ACCUMULATE times what is computed at a time. Call
    `loader.batch_sampler.set_state(epoch, step)` before each round.
    """
    sampler = EpochBatchSampler(
        len(dataset),
        cfg.TRAIN.BATCH_SIZE_PER_GPU * cfg.TRAIN.ACCUMULATE,
        seed=cfg.SEED,
        shuffle=cfg.TRAIN.SHUFFLE,
        rank=rank,
        world_size=world_size,
    )
    return PoseLoader(dataset, batch_sampler=sampler, **_workers(cfg))


def build_test_loader(
    cfg: CfgNode, dataset: Dataset, rank: int = 0, world_size: int = 1
) -> PoseLoader:
    """Return this process's part of `dataset` in batches, in order, each sample once in all."""
    order = evaluation_order(len(dataset), rank, world_size)
    size = cfg.TEST.BATCH_SIZE_PER_GPU
    return PoseLoader(dataset, batch_size=size, sampler=order, **_workers(cfg))


def _workers(cfg: CfgNode) -> dict[str, Any]:
    return {
        "num_workers": cfg.WORKERS,
        "collate_fn": collate,
        "persistent_workers": cfg.WORKERS > 0,
        "pin_memory": cfg.PIN_MEMORY and torch.cuda.is_available(),
        "worker_init_fn": _start_worker,
        "generator": torch.Generator(),  # else each round would draw from torch's global state
    }


def _start_worker(worker: int) -> None:
    """One thread a worker; signals are the main process's to answer, which then ends the workers.

    Schedulers send SIGTERM to every process of a job, and the main one still needs its workers.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """End what is left of workers: multiprocessing would ask them by SIGTERM, and wait for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would call it a failure
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _ceil_divide(number: int, by: int) -> int:
    return -(-number // by)
