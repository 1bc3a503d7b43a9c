"""The benchmark: its rows, and that the numbers of a row are consistent."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.analysis.benchmark.measure import decode_ms, interleave, loader_rates, peak_memory
from lib.analysis.benchmark.rows import as_table, growth_plot, growth_rows, time_rows
from lib.models import MODELS, ModelSpec, PoseNetwork
from lib.models.pruning import PRUNERS, TokenPruner
from lib.utils.errors import UserError

MakeCfg = Callable[..., CfgNode]
CPU = torch.device("cpu")
MODES = ["none", "connection", "token"]
quick = partial(time_rows, precisions=("fp32",), batches=(2,), rounds=1)


class ToyNetwork(PoseNetwork):
    """A network without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 16, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


@pytest.fixture
def toy_cfg(small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    monkeypatch.setitem(MODELS, "toy", ModelSpec(build=lambda cfg: ToyNetwork()))
    return small_cfg(NAME="toy")


def test_tasks_alternate() -> None:
    order: list[str] = []
    times = interleave({name: partial(order.append, name) for name in "abc"}, 3, CPU)
    assert order == list("abc") * 5  # two rounds to warm up
    assert {name: len(runs) for name, runs in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_peak_memory_is_of_tensors_alive_together() -> None:
    def task() -> None:
        for _ in range(3):
            torch.ones(1_000_000)  # 4 MB, freed at once

    assert peak_memory(task, CPU) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("task", ["infer", "train"])
def test_numbers_of_a_row_agree(task: str, small_cfg: MakeCfg) -> None:
    rows = quick(small_cfg(), CPU, task)
    assert [(row.task, row.prune) for row in rows] == [(task, mode) for mode in MODES]
    none = rows[0]
    for row in rows:
        assert row.to_none == pytest.approx(none.ms_per_image / row.ms_per_image)
        gflops = 2e3 * row.gmacs / row.ms_per_image  # per second
        assert row.of_limit == pytest.approx(gflops / row.limit_gflops)
        assert row.peak_mb > 0
    assert rows[2].gmacs < none.gmacs == rows[1].gmacs
    assert len(as_table(rows).splitlines()) == 2 + len(rows)


def test_added_pruning_rule_appears(small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(TokenPruner):
        name = "other"

    monkeypatch.setitem(PRUNERS, "other", Other())
    assert [row.prune for row in quick(small_cfg(), CPU, "infer")] == [*MODES, "other"]


@pytest.mark.parametrize("task", ["infer", "train"])
def test_network_without_pruning_has_one_row(task: str, toy_cfg: CfgNode) -> None:
    (row,) = quick(toy_cfg, CPU, task)
    assert (row.prune, row.to_none) == ("none", 1)
    assert row.gmacs * 1e9 == pytest.approx((3 if task == "train" else 1) * 12 * 16 * 16 * 48)


def test_precisions_that_a_runtime_lacks_are_skipped(small_cfg: MakeCfg) -> None:
    pytest.importorskip("onnxruntime")
    rows = quick(
        small_cfg(PRUNE="none"), CPU, "infer", precisions=("bf16",), runtimes=("onnx", "eager")
    )
    assert {row.runtime for row in rows} == {"eager"}


def test_growth_counts_the_visual_tokens(small_cfg: MakeCfg) -> None:
    growth = growth_rows(small_cfg(IMAGE_SIZE=[32, 32]), CPU, rounds=1)
    assert list(growth) == [4, 16, 64]
    assert len(growth_plot(growth).axes[0].lines) == 3  # a line for each pruning mode


def test_growth_needs_patches(toy_cfg: CfgNode) -> None:
    with pytest.raises(UserError, match="'toy': this network has no patches"):
        growth_rows(toy_cfg, CPU)


def test_loader_and_decoding_are_timed(people: Path, small_cfg: MakeCfg) -> None:
    cfg = small_cfg()
    cfg.DATASET.DATASET, cfg.DATASET.ROOT = "synthetic", str(people)
    rates = loader_rates(cfg, samples=8, rounds=1)
    assert rates["ratio"] == pytest.approx(rates["loader"] / rates["bare"])
    assert decode_ms(cfg, CPU, batch=2, rounds=1) > 0
