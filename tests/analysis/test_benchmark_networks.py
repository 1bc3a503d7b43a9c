"""Several networks in one table, the parts of a training step, and what the machine is."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from lib.analysis.benchmark import rows as benchmark_rows
from lib.analysis.benchmark import steps
from lib.analysis.benchmark.measure import limit_kernels
from lib.analysis.benchmark.plots import networks_plot
from lib.analysis.benchmark.rows import as_table, known_score, time_rows
from lib.models import MODELS
from lib.utils import machine
from lib.utils.distributed import Distributed
from lib.utils.errors import UserError
from lib.utils.machine import busy_warning

MakeCfg = Callable[..., CfgNode]
CPU = torch.device("cpu")


def test_networks_are_compared_with_the_first(
    small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toy_network import TOY_NETWORK

    monkeypatch.setitem(MODELS, "toy", TOY_NETWORK)
    toy = small_cfg(NAME="toy", HEATMAP_SIZE=[32, 24])
    rows, _ = time_rows(
        {"a/same.yaml": small_cfg(), "b/same.yaml": toy, "b/toy.yaml": toy}, CPU,
        {"infer": [1, 3]}, rounds=2,
    )  # fmt: skip
    names = [(row.network, row.prune) for row in rows]
    modes = ("none", "connection", "token")
    expected = [("a/same.yaml", mode) for mode in modes]
    assert names == 2 * [*expected, ("b/same.yaml", "none"), ("toy", "none")]
    assert [row.batch for row in rows] == [1] * 5 + [3] * 5
    figures = list(rows.values())
    assert [figures[i].to_first for i in (0, 5)] == [1, 1]
    assert [figures[i].to_none for i in (0, 3, 4, 5, 8, 9)] == [1] * 6
    (axes,) = networks_plot(rows).axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 5  # each row of the first batch size has its own


def test_ratios_are_of_the_same_round(small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down changes times, not ratios."""

    def slower_and_slower(tasks: dict, rounds: int, device: torch.device) -> dict:
        drift = np.linspace(1, 5, 5)
        return {key: list(drift * (1 + number)) for number, key in enumerate(reversed([*tasks]))}

    monkeypatch.setattr(benchmark_rows, "interleave", slower_and_slower)
    cfgs = {"a.yaml": small_cfg(), "b.yaml": small_cfg()}
    rows, limits = time_rows(cfgs, CPU, {"infer": [1], "train": [2]})
    figures = list(rows.values())
    for task in (figures[:6], figures[6:]):
        assert [row.to_first for row in task] == pytest.approx([6 / n for n in (6, 5, 4, 3, 2, 1)])
        nones = [6 / 6, 6 / 5, 6 / 4, 3 / 3, 3 / 2, 3 / 1]
        assert [row.to_none for row in task] == pytest.approx(nones)
    assert "warning" in as_table(rows, limits)


def test_a_score_is_of_the_same_network_and_weights(small_cfg: MakeCfg, tmp_path: Path) -> None:
    cfg = small_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    folder = tmp_path / cfg.DATASET.DATASET / cfg.MODEL.NAME / "run"
    folder.mkdir(parents=True)
    weights, results = folder / "final_state.pth", folder / "results.json"
    assert math.isnan(known_score(cfg, "run"))
    weights.touch()
    content = {
        "config": cfg.dump(), "weights": str(weights), "scores": {"Mean": 12.5, "Head": 1.0},
        "metric": {"name": "PCKh", "primary": "Mean"},
    }  # fmt: skip
    results.write_text(json.dumps(content))
    assert known_score(cfg, "run") == 12.5
    other = cfg.clone()
    other.MODEL.SPARSITY.PRUNE = "token"
    assert math.isnan(known_score(other, "run"))
    again = folder / "test_2" / "results.json"  # of another test of the same weights
    again.parent.mkdir()
    again.write_text(json.dumps(content | {"config": other.dump(), "scores": {"Mean": 7.0}}))
    assert (known_score(cfg, "run"), known_score(other, "run")) == (12.5, 7.0)
    later = results.stat().st_mtime + 5
    on_train = cfg.clone()
    on_train.DATASET.TEST_SET = "train"
    for changed, expected in (
        ({"scores": {"Mean": 13.5}}, 13.5),  # the newest counts
        ({"scores": None}, 12.5),
        ({"config": on_train.dump(), "scores": {"Mean": 99.0}}, 12.5),
    ):
        again.write_text(json.dumps(content | changed))
        os.utime(again, (later, later))
        assert known_score(cfg, "run") == expected
    again.unlink()
    results.write_text(json.dumps(content | {"weights": "other.pth"}))
    assert math.isnan(known_score(cfg, "run"))
    results.write_text(json.dumps(content))
    os.utime(weights, (results.stat().st_mtime + 9,) * 2)  # trained again since
    assert math.isnan(known_score(cfg, "run"))
    results.write_text("[]")
    with pytest.raises(UserError, match=r"results\.json: cannot read the scores"):
        known_score(cfg, "run")


def test_the_limit_of_int8_is_measured() -> None:
    pytest.importorskip("openvino")
    ((kernel, operations),) = limit_kernels(CPU, None).items()
    assert operations == 2.0 * 2048**3
    kernel()
    assert limit_kernels(torch.device("cuda"), None) == {}


def test_the_parts_of_a_step_add_up(
    people: Path, small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small_cfg()
    cfg.DATASET.DATASET, cfg.DATASET.ROOT, cfg.WORKERS = "synthetic", str(people), 0
    cfg.TRAIN.BATCH_SIZE_PER_GPU = 8  # of 20 people: the loader starts again
    clock = iter(range(10_000))
    monkeypatch.setattr(steps.time, "perf_counter", lambda: float(next(clock)))
    lines = steps.step_table(cfg, Distributed(CPU), steps=2).splitlines()[2:]
    cells = {line.split("|")[1].strip(): float(line.split("|")[2]) for line in lines}
    assert list(cells) == ["data", "forward", "loss and backward", "optimizer", "other", "all"]
    assert all(cell > 0 for cell in cells.values())
    assert sum(cells.values()) == 2 * cells["all"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model name\t: A Chip\nflags\t: fpu avx2 avx_vnni\n", "A Chip, .*: AVX2, VNNI$"),
        (
            "flags : avx2 avx512f avx512_bf16 avx512_vnni amx_tile",
            ": AVX2, AVX-512, VNNI, bf16, AMX$",
        ),
        ("Features : asimd bf16 i8mm", ": bf16, i8mm$"),
        (None, "cores, instructions: unknown$"),
    ],
)
def test_the_processor_is_described(
    text: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", file)
    assert re.search(expected, machine.processor())


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 9, 9), raising=False)
    assert busy_warning() == ""
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 0, 0), raising=False)
    assert "load 2.00 on 4 cores" in busy_warning()
    monkeypatch.delattr(os, "getloadavg")  # Windows
    assert busy_warning() == ""
