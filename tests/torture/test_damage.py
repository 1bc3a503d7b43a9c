"""Damaged files: resume uses the previous checkpoint, damaged weights are errors.

A `.pth` file is a zip archive, whose CRC covers the tensors and the pickle; a `.safetensors` file
has a SHA-256 in its metadata.
"""

import io
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from desk import Desk
from torch import nn

from lib.config import load_cfg
from lib.core import training_checkpoint
from lib.models import build_model
from lib.utils.checkpoint import load_weights, read_checkpoint, read_weights
from lib.utils.errors import UserError
from lib.utils.files import previous_of

COPIES = 200
EDGE = 200  # bytes; the ends of a file hold its structure


def damaged_copies(data: bytes, seed: int, count: int = COPIES) -> Iterator[tuple[str, bytes]]:
    """Yield damaged copies of `data`, cut off or with a flipped bit, with a description.

    A quarter of them is damaged near an end.
    """
    rng = random.Random(seed)
    for number in range(count):
        position = rng.randrange(len(data))
        if number % 8 > 5:
            position = rng.choice([position % EDGE, len(data) - 1 - position % EDGE])
        if number % 2:
            bit = rng.randrange(8)
            yield f"bit {bit} of byte {position} flipped", flipped(data, position, bit)
        else:
            yield f"cut off at {position}", data[:position]


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def trained(desk: Desk) -> tuple[Path, Path]:
    """Train a little; return the newest checkpoint and the previous one."""
    done = desk.on_cfg("train", "TRAIN.CHECKPOINT_STEPS", 3)
    assert done.code == 0, done.err
    logging.getLogger().handlers.clear()  # hide 400 warnings
    newest = desk.results / "checkpoint.pth"
    return newest, previous_of(newest)


def test_the_previous_checkpoint_is_used(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    newest, previous = trained(desk)
    logging.getLogger().addHandler(caplog.handler)
    whole, before = newest.read_bytes(), previous.read_bytes()
    intact = {path: training_checkpoint.read([path])[1]["progress"] for path in (newest, previous)}
    assert intact[newest] != intact[previous]
    others = damaged_copies(before, seed=1)
    undetected = refused = 0
    for what, damaged in damaged_copies(whole, seed=0):
        caplog.clear()
        newest.write_bytes(damaged)
        path, content = training_checkpoint.read(training_checkpoint.candidates(newest))
        assert content["progress"] == intact[path], what
        if path == newest:  # a bit of the archive that no reader uses, such as a date
            undetected += 1
            assert same_content(newest, whole), what
            continue
        (warning,) = caplog.messages
        assert str(newest) in warning, what

        other, also_damaged = next(others)
        previous.write_bytes(also_damaged)
        error = error_of(lambda: training_checkpoint.read(training_checkpoint.candidates(newest)))
        refused += bool(error)
        assert str(previous) in error if error else same_content(previous, before), other
        previous.write_bytes(before)
    print(f"\ncheckpoints: {undetected} of {COPIES} damages had no effect, others detected; "
          f"{refused} pairs refused")  # fmt: skip


def error_of(action: Callable[[], object]) -> str:
    """The UserError of an action, which must be one line; "" without one."""
    try:
        action()
    except UserError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        return message
    return ""


def same_content(path: Path, intact: bytes) -> bool:
    """Whether a damaged checkpoint still has the weights of the intact one."""
    old = torch.load(io.BytesIO(intact), weights_only=True)
    return equal(old["model"], read_checkpoint(path)["model"])


def test_the_command_resumes_from_the_previous_checkpoint(desk: Desk) -> None:
    newest, previous = trained(desk)
    whole, before = newest.read_bytes(), previous.read_bytes()
    weights = read_weights(desk.results / "final_state.pth")
    cuts = [damage for damage in damaged_copies(whole, seed=2, count=12) if "cut" in damage[0]]
    for what, damaged in cuts:
        newest.write_bytes(damaged)
        previous.write_bytes(before)
        resumed = desk.on_cfg("train", "AUTO_RESUME", "True", "TRAIN.CHECKPOINT_STEPS", 3)
        assert resumed.code == 0, f"{what}: {resumed.err}"
        assert f"{newest}" in resumed.err.partition("using the previous checkpoint")[0], what
        assert f"resuming from {previous}" in resumed.err, what
        assert newest.with_stem("checkpoint_damaged").read_bytes() == damaged, what
        again = read_weights(desk.results / "final_state.pth")
        assert all(torch.equal(value, again[name]) for name, value in weights.items()), what
    for what, damaged in damaged_copies(before, seed=3, count=12):
        if "cut" not in what:
            continue
        newest.write_bytes(whole[:-1])
        previous.write_bytes(damaged)
        desk.on_cfg("train", "AUTO_RESUME", "True").fails_with(f"{previous}")
        assert previous.read_bytes() == damaged, what


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
def test_damaged_weights_are_errors_of_one_line(desk: Desk, kind: str) -> None:
    trained(desk)
    path = desk.results / f"final_state{kind}"
    network = build_model(load_cfg(desk.yaml))
    load_weights(network, path)
    weights = copy_weights(network)
    refused = changed = 0
    for what, damaged in damaged_copies(path.read_bytes(), seed=4):
        bad = desk.folder / f"bad{kind}"
        bad.write_bytes(damaged)
        error = error_of(lambda: load_weights(network, bad))  # noqa: B023
        refused += bool(error)
        changed += not error and not equal(weights, copy_weights(network))
        assert not error or str(bad) in error, what
    print(
        f"\nweights{kind}: {refused} of {COPIES} damaged copies refused, {changed} change a weight"
    )
    assert refused >= COPIES / 2  # every cut
    assert not changed


def copy_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())
