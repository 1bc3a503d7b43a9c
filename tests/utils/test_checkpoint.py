"""Checkpoints: atomic writes, untrusted reads, clear errors for files that do not fit."""

import argparse
import os
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import build_model
from lib.utils.checkpoint import (
    load_pretrained,
    load_weights,
    read_checkpoint,
    read_weights,
    save_checkpoint,
    save_weights,
)
from lib.utils.errors import UserError
from lib.utils.files import previous_of


@pytest.fixture
def model(small_cfg) -> nn.Module:  # noqa: ANN001
    torch.manual_seed(1)
    return build_model(small_cfg())


@pytest.fixture
def other(small_cfg) -> nn.Module:  # noqa: ANN001
    torch.manual_seed(2)
    return build_model(small_cfg())


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_all_formats_load(model: nn.Module, other: nn.Module, tmp_path: Path) -> None:
    weights = model.state_dict()
    save_checkpoint(weights, tmp_path / "plain.pth")
    save_checkpoint({"format": 1, "model": weights}, tmp_path / "checkpoint.pth")
    save_checkpoint({"state_dict": weights, "epoch": 3}, tmp_path / "family.pth")
    save_checkpoint({f"module.{k}": v for k, v in weights.items()}, tmp_path / "parallel.pth")
    save_file(weights, tmp_path / "weights.safetensors")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    for file in files:
        nn.init.zeros_(other.keypoint_tokens)
        load_weights(other, file)
        assert same(model, other), file


def family(model: nn.Module) -> dict[str, Any]:
    """A training checkpoint as the HRNet family writes it."""
    weights = model.state_dict()
    return {
        "epoch": 210,
        "model": "pose_tokenpose_s",
        "state_dict": {f"module.{name}": value for name, value in weights.items()},
        "best_state_dict": weights,
        "perf": np.float64(90.1),
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
    }


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("core", [b"core", b"_core"])  # NumPy 1 and 2
def test_a_checkpoint_of_the_family_loads(
    model: nn.Module, other: nn.Module, tmp_path: Path, core: bytes, is_zip: bool
) -> None:
    extra = {
        "scores": np.ones((2, 3), np.float32), "done": np.bool_(True), "count": np.int64(3),
        "args": argparse.Namespace(lr=0.1, output=Path("a"), sizes=np.arange(3)),
        "torch": torch.__version__, "meters": defaultdict(list, loss=[0.1]), "path": Path("a"),
        "pure": {PurePosixPath("a"), PureWindowsPath("b")}, "time": datetime.now(timezone.utc),
        "took": timedelta(1), "cfg": CfgNode({"A": CfgNode({"B": [1]})}), "date": date.today(),
        "simple": SimpleNamespace(a=1), "frozen": frozenset([1]), "method": "".join,
    }  # fmt: skip
    path = tmp_path / "checkpoint.pth"
    torch.save(family(model) | extra, path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
    if not is_zip:  # its pickles hold no lengths
        for name in (b"_core", b"core"):
            data = data.replace(
                b"numpy." + name + b".multiarray", b"numpy." + core + b".multiarray"
            )
        path.write_bytes(data)
    load_weights(other, path)
    assert same(model, other)


WRAPPERS = (
    "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.", "model.",
    "model._orig_mod.", "net.", "network.", "backbone.", "pose.net.", "_fsdp_wrapped_module.",
    "module.model.net.",
)  # fmt: skip


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_prefixes_of_wrappers_are_removed(
    model: nn.Module,
    other: nn.Module,
    tmp_path: Path,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    weights = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    weights |= {"criterion.weight": torch.ones(3), "n_averaged": torch.tensor(1)}
    save_checkpoint(weights, tmp_path / "a.pth")
    with caplog.at_level("INFO"):
        load_weights(other, tmp_path / "a.pth")
    assert same(model, other)
    assert "2 unused" in caplog.text
    inside = {
        name.replace("backbone.", "backbone._orig_mod.").replace("head.", "head.module."): value
        for name, value in model.state_dict().items()
    }
    save_checkpoint(inside, tmp_path / "b.pth")
    nn.init.zeros_(other.keypoint_tokens)
    load_weights(other, tmp_path / "b.pth")
    assert same(model, other)
    load_pretrained(other, tmp_path / "a.pth", ["conv1"])


CHOICES: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "model_state_dict": lambda good, bad: {"model_state_dict": good, "epoch": 3},
    "state_dict_ema": lambda good, bad: {"state_dict": bad, "state_dict_ema": good},
    "model_ema": lambda good, bad: {"model": bad, "optimizer": {"state": {}}, "model_ema": good},
    "ema_state_dict": lambda good, bad: {"ema_state_dict": good, "state_dict": bad},
    "ema": lambda good, bad: {"model": bad, "ema": good},
    "params_ema": lambda good, bad: {"params": bad, "params_ema": good},
    "best_state_dict": lambda good, bad: {"state_dict": bad, "best_state_dict": good},
    "swa_model": lambda good, bad: {"model": bad, "swa_model": good},
    "cfg_node": lambda good, bad: {"cfg_node": CfgNode({}), "weights": defaultdict(float, good)},
    "net": lambda good, bad: {"net": good, "acc": 0.9},
    "weights": lambda good, bad: {"config": {"dim": 3}, "weights": good, "loss": {"x": bad["z"]}},
    "generator": lambda good, bad: {"generator": good},
    "model.state_dict": lambda good, bad: {"model": {"state_dict": good, "name": "x"}, "epoch": 1},
    "state_dict": lambda good, bad: {"criterion": {"w": bad["z"]}, "state_dict": good},
    "model": lambda good, bad: {"rng": {"cpu": bad["z"]}, "model_args": {"dim": 1}, "model": good},
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_dictionary_of_weights_is_found_and_a_choice_is_logged(
    model: nn.Module, other: nn.Module, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad: dict[str, Tensor] = {key: value * 0 for key, value in model.state_dict().items()}
    content = CHOICES[name](model.state_dict(), bad | {"z": torch.zeros(2)})
    save_checkpoint(content, tmp_path / "a.pth")
    with caplog.at_level("INFO"):
        load_weights(other, tmp_path / "a.pth")
    assert same(model, other)
    others = [
        key for key in content if key in ("state_dict", "model", "criterion", "params", "rng")
    ]
    if others != [name.partition(".")[0]] and others:
        assert f"taking its {name}, not its " in caplog.text
    assert len(caplog.messages) <= 2


def test_the_names_of_another_network_are_shown(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    strange = {f"encoder.{name}\n": torch.zeros(2) for name in "abcd"}
    save_checkpoint(strange, path)
    with pytest.raises(
        UserError, match=r"encoder\.a , encoder\.b .* and 1 more.*MODEL\.NAME"
    ) as error:
        load_weights(model, path)
    assert "keypoint_tokens" in str(error.value)
    assert "\n" not in str(error.value)
    assert "configuration" not in str(error.value)
    part = dict(list(model.state_dict().items())[5:]) | {"x.y": torch.zeros(1)}
    save_checkpoint(part, path)
    with pytest.raises(UserError, match=r"missing \(\d+ of .*x\.y.*configuration"):
        load_weights(model, path)


ODD_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "sparse": lambda value: value.to_sparse(),
    "compressed": lambda value: value[None].flatten(0, -2).to_sparse_csr(),
    "quantized": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "without data": lambda value: value.to("meta"),
    "nested": lambda value: torch.nested.nested_tensor([value, value]),
    "a number": lambda value: 1.0,
    "a list": lambda value: value.tolist(),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_errors(model: nn.Module, tmp_path: Path, kind: str) -> None:
    weights = model.state_dict()
    weights["head.1.weight"] = ODD_TENSORS[kind](weights["head.1.weight"])
    torch.save(weights, tmp_path / "odd.pth")
    for load in (load_weights, load_pretrained):
        with pytest.raises(UserError, match=r"odd\.pth") as error:
            load(model, tmp_path / "odd.pth")
        assert "\n" not in str(error.value)


def test_one_line_is_logged(
    model: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = model.state_dict() | {"teacher.weight": torch.zeros(3)}
    save_checkpoint(weights, tmp_path / "a.pth")
    with caplog.at_level("INFO"):
        load_weights(model, tmp_path / "a.pth")
    assert len(caplog.messages) == 1
    assert "a.pth" in caplog.text
    assert "teacher.weight" in caplog.text


def test_missing_and_different_weights_leave_the_model_unchanged(
    model: nn.Module, other: nn.Module, tmp_path: Path
) -> None:
    weights = model.state_dict()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    incomplete = {k: v for k, v in weights.items() if k != "backbone.bn1.running_var"}
    save_checkpoint(incomplete, tmp_path / "incomplete.pth")
    with pytest.raises(UserError, match=r"backbone\.bn1\.running_var missing"):
        load_weights(other, tmp_path / "incomplete.pth")
    save_checkpoint(weights | {"head.1.bias": torch.zeros(7)}, tmp_path / "shape.pth")
    with pytest.raises(UserError, match=r"head\.1\.bias is \[7\], the network's \[192\]"):
        load_weights(other, tmp_path / "shape.pth")
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name])


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def test_no_code_of_a_hostile_file_runs(model: nn.Module, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"model": model.state_dict(), "x": Hostile(trap)}, tmp_path / "hostile.pth")
    with pytest.raises(UserError, match="could run code"):
        load_weights(model, tmp_path / "hostile.pth")
    assert not trap.exists()


def test_damaged_files_are_errors(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    save_checkpoint({"format": 1, "model": model.state_dict()}, path)
    data = path.read_bytes()
    choose = random.Random(0)
    for size in [0, 1, 100, *(choose.randrange(len(data)) for _ in range(20))]:
        path.write_bytes(data[:size])
        with pytest.raises(UserError) as error:
            load_weights(model, path)
        assert "\n" not in str(error.value)
    for content, name in [([1, 2], "list"), ({"a": 1}, "number"), ({}, "empty")]:
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(UserError, match="has no weights"):
            load_weights(model, tmp_path / f"{name}.pth")
    torch.save({1: torch.zeros(2)}, tmp_path / "numbered.pth")
    with pytest.raises(UserError, match="has no weights"):
        load_weights(model, tmp_path / "numbered.pth")
    weights = model.state_dict()
    weights["head.1.bias"] = torch.full_like(weights["head.1.bias"], float("nan"))
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(UserError, match=r"not finite, in head\.1\.bias"):
        load_weights(model, tmp_path / "nan.pth")
    for missing in (tmp_path / "none.pth", tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError):
            read_weights(missing)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint({"a": 1}, path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib.utils.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        save_checkpoint({"b": 2}, path)
    monkeypatch.undo()
    assert read_checkpoint(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]
    with pytest.raises(UserError, match="cannot write"):
        save_checkpoint({}, path / "below.pth")


def test_files_are_flushed_by_a_handle_that_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses others."""
    fcntl = pytest.importorskip("fcntl")
    flushed = []

    def fsync(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & 3 == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flushed.append(handle)

    monkeypatch.setattr("lib.utils.files.os.fsync", fsync)
    save_checkpoint({"a": 1}, tmp_path / "a.pth")
    save_weights({"a": torch.ones(1)}, tmp_path / "b.pth")
    assert len(flushed) == 3
    assert read_checkpoint(tmp_path / "a.pth") == {"a": 1}


def test_a_flipped_bit_of_a_weight_is_detected(model: nn.Module, tmp_path: Path) -> None:
    save_weights(model.state_dict(), tmp_path / "ours.pth")
    torch.save(model.state_dict(), tmp_path / "foreign.pth")
    choose = random.Random(0)
    for name in ("ours.pth", "foreign.pth", "ours.safetensors"):
        data = (tmp_path / name).read_bytes()
        load_weights(model, tmp_path / name)
        begin = data.index(model.head[0].weight.detach().numpy().tobytes())
        for offset in range(begin, begin + 32):
            damaged = bytearray(data)
            damaged[offset] ^= 1 << choose.randrange(8)
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(UserError, match="damaged"):
                load_weights(model, tmp_path / name)


def test_the_previous_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for number in range(3):
        save_checkpoint({"number": number}, path, keep_previous=True)
    assert read_checkpoint(path) == {"number": 2}
    assert read_checkpoint(previous_of(path)) == {"number": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pth", "a_previous.pth"]


def test_a_crash_before_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint({"number": 0}, path)

    def fail(source: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({"number": 1}, path, keep_previous=True)
    assert read_checkpoint(path) == {"number": 0}
    assert {file.name for file in tmp_path.iterdir()} == {"a.pth", "a_previous.pth"}


def test_pretrained_loads_the_named_layers(
    model: nn.Module, other: nn.Module, tmp_path: Path
) -> None:
    save_checkpoint(model.state_dict(), tmp_path / "a.pth")
    load_pretrained(other, tmp_path / "a.pth", ["conv1", "layer1"])
    assert torch.equal(other.backbone.conv1.weight, model.backbone.conv1.weight)
    assert torch.equal(other.backbone.layer1[2].conv2.weight, model.backbone.layer1[2].conv2.weight)
    assert not torch.equal(other.backbone.conv2.weight, model.backbone.conv2.weight)
    load_pretrained(other, tmp_path / "a.pth")
    assert same(model, other)
    torch.save({"unknown": torch.zeros(2)}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="no weights that fit"):
        load_pretrained(other, tmp_path / "b.pth")
