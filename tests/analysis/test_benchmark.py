"""The benchmark: its rows, and that the numbers of a row are consistent."""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.analysis.benchmark import measure
from lib.analysis.benchmark import rows as benchmark_rows
from lib.analysis.benchmark.measure import decode_ms, interleave, loader_rates, peak_memory
from lib.analysis.benchmark.plots import growth_plot
from lib.analysis.benchmark.rows import Figures, Variant, as_table, finer_patches, time_rows
from lib.core.trainer import build_train_state
from lib.inference.runtimes import build_runner
from lib.models import MODELS, ModelSpec, PoseNetwork
from lib.models.pruning import PRUNERS, TokenPruner
from lib.utils.errors import UserError

MakeCfg = Callable[..., CfgNode]
CPU = torch.device("cpu")
MODES = ["none", "connection", "token"]


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run short tasks once in their turn, and a small kernel for the limit."""
    monkeypatch.setattr(measure, "LASTING", 0)
    monkeypatch.setattr(benchmark_rows, "limit_kernels", lambda *_: {partial(sorted, "ab"): 1e9})


def quick(cfg: CfgNode, task: str, **options: Any) -> dict[Variant, Figures]:
    return time_rows({"network.yaml": cfg}, CPU, {task: [2]}, rounds=1, **options)[0]


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


def test_short_tasks_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn lasts long enough, and its time is of one run."""
    monkeypatch.setattr(measure, "LASTING", 20)
    now = 0.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now)
    tasks = {seconds: partial(work, seconds) for seconds in (5.0, 30.0)}
    assert interleave(tasks, 2, CPU) == {5.0: [5, 5], 30.0: [30, 30]}
    assert now == (5 + 4 * 5 + 2 * 4 * 5) + 4 * 30  # once, then four times


def test_peak_memory_is_of_tensors_alive_together() -> None:
    def task() -> None:
        for _ in range(3):
            torch.ones(1_000_000)  # 4 MB, freed at once

    assert peak_memory(task, CPU) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("task", ["infer", "train"])
def test_numbers_of_a_row_agree(task: str, small_cfg: MakeCfg) -> None:
    rows, limits = time_rows({"a.yaml": small_cfg()}, CPU, {task: [2]}, rounds=1)
    assert [(row.network, row.task, row.prune) for row in rows] == [("a", task, m) for m in MODES]
    none, connection, token = rows.values()
    for figures in rows.values():
        assert figures.to_none == figures.to_first == pytest.approx(none.ms / figures.ms)
        assert figures.of_limit == pytest.approx(2e12 * figures.gmacs / figures.ms / limits["fp32"])
        assert figures.peak_mb > 0
    assert token.gmacs < none.gmacs == connection.gmacs
    lines = as_table(rows, limits).splitlines()
    assert sum(line.startswith("|") for line in lines) == 2 + len(rows)


def test_a_step_trains_a_network_of_its_own(
    toy_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each precision starts from the same weights, and inference keeps them."""
    trained, run = [], []

    def note_training(cfg: CfgNode, network: PoseNetwork, *words: Any, **options: Any) -> Any:
        trained.append(network)
        return build_train_state(cfg, network, *words, **options)

    def note_inference(network: PoseNetwork, *words: Any, **options: Any) -> Any:
        run.append(network)
        return build_runner(network, *words, **options)

    monkeypatch.setattr(benchmark_rows, "build_train_state", note_training)
    monkeypatch.setattr(benchmark_rows, "build_runner", note_inference)
    sizes = {"train": [2], "infer": [2]}
    time_rows({"a.yaml": toy_cfg}, CPU, sizes, precisions=("fp32", "bf16"), rounds=1)
    weights = [network.layer.weight for network in (*trained, run[0])]
    assert run[0] is run[1]
    assert not any(a.equal(b) for a, b in combinations(weights, 2))


def test_added_pruning_rule_appears(small_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(TokenPruner):
        name = "other"

    monkeypatch.setitem(PRUNERS, "other", Other())
    assert [row.prune for row in quick(small_cfg(), "infer")] == [*MODES, "other"]


@pytest.mark.parametrize("task", ["infer", "train"])
def test_network_without_pruning_has_one_row(task: str, toy_cfg: CfgNode) -> None:
    ((row, figures),) = quick(toy_cfg, task).items()
    assert (row.prune, figures.to_none) == ("none", 1)
    assert figures.gmacs * 1e9 == pytest.approx((3 if task == "train" else 1) * 12 * 16 * 16 * 48)


def test_precisions_that_a_runtime_lacks_are_skipped(small_cfg: MakeCfg) -> None:
    pytest.importorskip("onnxruntime")
    options = {"precisions": ("bf16",), "runtimes": ("onnx", "eager")}
    rows = quick(small_cfg(PRUNE="none"), "infer", **options)
    assert {row.runtime for row in rows} == {"eager"}


def test_growth_counts_the_visual_tokens(small_cfg: MakeCfg) -> None:
    cfgs = finer_patches(small_cfg(IMAGE_SIZE=[32, 32]))
    assert list(cfgs) == ["4 tokens", "16 tokens", "64 tokens"]
    lines = growth_plot(time_rows(cfgs, CPU, {"infer": [1]}, rounds=1)[0]).axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == 3 * [[4, 16, 64]]  # one for each mode


def test_growth_needs_patches(toy_cfg: CfgNode) -> None:
    with pytest.raises(UserError, match="'toy': this network has no patches"):
        finer_patches(toy_cfg)


def test_loader_and_decoding_are_timed(people: Path, small_cfg: MakeCfg) -> None:
    cfg = small_cfg()
    cfg.DATASET.DATASET, cfg.DATASET.ROOT = "synthetic", str(people)
    rates = loader_rates(cfg, samples=8, rounds=1)
    assert rates["ratio"] == pytest.approx(rates["loader"] / rates["bare"])
    assert decode_ms(cfg, CPU, batch=2, rounds=1) > 0
