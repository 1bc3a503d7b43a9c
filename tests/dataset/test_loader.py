"""Batches: the same for any number of workers, each sample in one process."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from lib.dataset import build_dataset, build_test_loader, build_train_loader
from lib.dataset.loader import EpochBatchSampler, _kill_workers
from lib.utils.errors import UserError


@pytest.mark.parametrize("data_format", ["jpg", "zip"])
def test_samples_do_not_depend_on_workers(
    cfg: CfgNode, data_format: str, assert_same: Callable[..., None]
) -> None:
    cfg.DATASET.DATA_FORMAT = data_format
    epochs = {}
    for workers in (0, 2):
        cfg.WORKERS = workers
        loader = build_train_loader(cfg, build_dataset(cfg, "train"))
        epochs[workers] = []
        for epoch in (0, 1):  # the workers persist and get the new epoch
            loader.batch_sampler.set_state(epoch)
            epochs[workers] += list(loader)
    assert len(epochs[0]) == 6
    for one, other in zip(epochs[0], epochs[2], strict=True):
        assert_same(one, other)
    assert epochs[0][0]["image"].dtype == torch.uint8
    assert not torch.equal(epochs[0][0]["index"], epochs[0][3]["index"])


def test_the_loader_keeps_the_global_random_state(cfg: CfgNode) -> None:
    loader = build_train_loader(cfg, build_dataset(cfg, "train"))
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_workers_error_is_one_line(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    # torch waits this many seconds (5) for the workers, then stops them.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2, raising=False)
    path = root / "images" / "4.jpg"
    path.unlink()
    cfg.WORKERS = 1
    loader = build_test_loader(cfg, build_dataset(cfg, "test"))
    message = ""
    try:
        list(loader)
    except UserError as error:  # pytest.raises would keep a reference to the loader
        message = str(error)
    del loader
    gc.collect()
    assert message == f"{path}: cannot read the image (No such file or directory)"


def test_a_worker_that_dies_is_reported(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = build_test_loader(cfg, build_dataset(cfg, "test"))

    def broken(loader: DataLoader) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(DataLoader, "__iter__", broken)
    with pytest.raises(UserError, match=r"a loader process died .*reset by peer.* lower WORKERS"):
        next(iter(loader))


def test_the_end_of_a_process_needs_no_signal_of_unix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("signal.SIGCHLD", raising=False)
    _kill_workers()


def test_resuming_in_the_middle_of_an_epoch() -> None:
    sampler = EpochBatchSampler(23, 4, seed=5)
    sampler.set_state(2)
    whole = list(sampler)
    assert sorted(index for batch in whole for _, index in batch) == list(range(23))
    assert {epoch for batch in whole for epoch, _ in batch} == {2}
    again = EpochBatchSampler(23, 4, seed=5)
    again.set_state(2, 3)
    assert list(again) == whole[3:]
    assert len(again) == len(whole) == 6


def test_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int, shuffle: bool = True) -> list:
        sampler = EpochBatchSampler(50, 50, seed=seed, shuffle=shuffle)
        sampler.set_state(epoch)
        return [index for batch in sampler for _, index in batch]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert order(1, 1, shuffle=False) == list(range(50))


@pytest.mark.parametrize(("length", "world_size"), [(23, 4), (8, 2), (3, 5)])
def test_processes_split_the_samples(length: int, world_size: int) -> None:
    samplers = [
        EpochBatchSampler(length, 2, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    indices = [[index for batch in sampler for _, index in batch] for sampler in samplers]
    assert len({len(own) for own in indices}) == 1
    assert {index for own in indices for index in own} == set(range(length))


@pytest.mark.parametrize("world_size", [1, 3, 9])
def test_a_test_has_every_sample_once_and_in_order(cfg: CfgNode, world_size: int) -> None:
    dataset = build_dataset(cfg, "test")
    orders = [build_test_loader(cfg, dataset, r, world_size).sampler for r in range(world_size)]
    assert [index for order in orders for index in order] == list(range(7))


def test_the_shares_of_all_processes_make_the_batch_of_one() -> None:
    """The micro-batches that one process accumulates are those of the other processes."""
    alone = list(EpochBatchSampler(24, 8, seed=3))
    shares = [list(EpochBatchSampler(24, 4, seed=3, rank=rank, world_size=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == alone
