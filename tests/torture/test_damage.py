"""Damaged files: resume takes the checkpoint before and says so, weights are refused."""

import logging
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from desk import Desk
from torch import nn

from lib.config import load_cfg
from lib.core import state
from lib.models import build_model
from lib.utils.checkpoint import load_weights, read_checkpoint, read_weights
from lib.utils.errors import UserError
from lib.utils.files import previous_of

PLACES = 200
EDGE = 200  # bytes; at a file's ends lie what says that it is whole


def damages(data: bytes, seed: int, count: int = PLACES) -> Iterator[tuple[str, bytes]]:
    """Spoil `data` in so many places, cut off and one bit flipped in turn; say where.

    One place in four is near an end.
    """
    choose = random.Random(seed)
    for number in range(count):
        place = choose.randrange(len(data))
        if number % 8 > 5:
            place = choose.choice([place % EDGE, len(data) - 1 - place % EDGE])
        if number % 2:
            bit = choose.randrange(8)
            yield f"bit {bit} of byte {place} flipped", flipped(data, place, bit)
        else:
            yield f"cut off at {place}", data[:place]


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def trained(desk: Desk) -> tuple[Path, Path]:
    """Train a little; the newest checkpoint and the one before it."""
    done = desk.on_cfg("train", "TRAIN.CHECKPOINT_STEPS", 3)
    assert done.code == 0, done.err
    logging.getLogger().handlers.clear()  # 400 warnings need not be seen
    newest = desk.results / "checkpoint.pth"
    return newest, previous_of(newest)


def test_the_checkpoint_before_stands_in(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    newest, previous = trained(desk)
    logging.getLogger().addHandler(caplog.handler)
    whole, before = newest.read_bytes(), previous.read_bytes()
    standing = state.read([previous])[1]["progress"]
    assert standing != state.read([newest])[1]["progress"]
    stood_in = refused = 0
    others = damages(before, seed=1)
    for what, damaged in damages(whole, seed=0):
        caplog.clear()
        newest.write_bytes(damaged)
        path, content = state.read(state.candidates(newest))
        assert (path, content["progress"]) == (previous, standing), what
        (warning,) = caplog.messages
        assert str(newest) in warning, what
        stood_in += 1

        other, also_damaged = next(others)
        previous.write_bytes(also_damaged)
        with pytest.raises(UserError) as error:
            state.read(state.candidates(newest))
        assert str(previous) in str(error.value), other
        assert "\n" not in str(error.value), other
        refused += 1
        previous.write_bytes(before)
    print(f"\ncheckpoints: {stood_in} of {PLACES} damages met by the one before, "
          f"{refused} of {PLACES} pairs refused")  # fmt: skip


def test_the_command_goes_on_from_the_one_before(desk: Desk) -> None:
    newest, previous = trained(desk)
    whole, before = newest.read_bytes(), previous.read_bytes()
    weights = read_weights(desk.results / "final_state.pth")
    for what, damaged in damages(whole, seed=2, count=8):
        newest.write_bytes(damaged)
        previous.write_bytes(before)
        resumed = desk.on_cfg("train", "AUTO_RESUME", "True", "TRAIN.CHECKPOINT_STEPS", 3)
        assert resumed.code == 0, f"{what}: {resumed.err}"
        assert f"{newest}" in resumed.err.partition("trying the one before")[0], what
        assert f"going on from {previous}" in resumed.err, what
        assert newest.with_stem("checkpoint_damaged").read_bytes() == damaged, what
        again = read_weights(desk.results / "final_state.pth")
        assert all(torch.equal(value, again[name]) for name, value in weights.items()), what
    for what, damaged in damages(before, seed=3, count=8):
        newest.write_bytes(whole[:-1])
        previous.write_bytes(damaged)
        desk.on_cfg("train", "AUTO_RESUME", "True").fails_with(f"{previous}")
        assert previous.read_bytes() == damaged, what


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
def test_damaged_weights_are_refused(desk: Desk, kind: str) -> None:
    trained(desk)
    path = desk.results / f"final_state{kind}"
    network = build_model(load_cfg(desk.yaml))
    load_weights(network, path)
    weights = _copy(network)
    refused = 0
    for what, damaged in damages(path.read_bytes(), seed=4):
        bad = desk.folder / f"bad{kind}"
        bad.write_bytes(damaged)
        with pytest.raises(UserError) as error:
            load_weights(network, bad)
        assert str(bad) in str(error.value), what
        assert "\n" not in str(error.value), what
        refused += 1
    assert all(torch.equal(value, weights[name]) for name, value in _copy(network).items())
    print(f"\nweights{kind}: {refused} of {PLACES} damages refused")


def _copy(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_marks_of_safetensors_may_go_but_never_the_weights(desk: Desk) -> None:
    """Every bit of what the header says beside the weights: the checksum, and its key."""
    trained(desk)
    path = desk.results / "final_state.safetensors"
    weights, data = read_weights(path), path.read_bytes()
    start = data.index(b'"__metadata__"')
    end = data.index(b"}", start) + 1
    assert end < 8 + struct.unpack("<Q", data[:8])[0]
    refused = whole = 0
    for place in range(start, end):
        for bit in range(8):
            path.write_bytes(flipped(data, place, bit))
            try:
                found = read_weights(path)
            except UserError:
                refused += 1
                continue
            assert found.keys() == weights.keys()
            assert all(torch.equal(value, found[name]) for name, value in weights.items())
            whole += 1
    print(f"\nmarks of .safetensors: {refused} flips refused, {whole} with the weights whole")


def test_a_training_checkpoint_needs_its_seal(desk: Desk) -> None:
    """What PyTorch wrote alone is no checkpoint of ours: a flip in it would pass unseen."""
    newest, _ = trained(desk)
    torch.save(read_checkpoint(newest), newest)
    desk.on_cfg("train", "TRAIN.RESUME", "True", "TRAIN.CHECKPOINT", newest).fails_with("checksum")
