"""Several networks, measured in one interleaved run: a table and a plot."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import nn
from yacs.config import CfgNode

from lib.analysis.benchmark.measure import Task, changed_cfg, interleave, limit_kernels
from lib.config.check import RUNTIMES
from lib.inference.runtimes import TYPES, build_runner
from lib.models import build_model, model_spec
from lib.models.pruning import prune_modes
from lib.utils.errors import as_user_error
from lib.utils.files import read_json
from lib.utils.macs import count_macs
from lib.utils.plot import FONT, line_style, new_panels
from lib.utils.text import markdown_table

_MARKERS, _COLORS = "osD^vP*X<>ph8d", 7  # of `line_style`
_LASTING = 0.02  # seconds: a shorter task is repeated, as its first run finds a cold cache


class Variant(NamedTuple):
    """A row of the table: what runs, and how."""

    network: str
    prune: str
    runtime: str
    precision: str


class Figures(NamedTuple):
    """The numbers of a row; dictionaries are by batch size."""

    gmacs: float  # of one image
    mparams: float
    score: float  # nan if it is not known
    ms: dict[int, float]  # per image, median
    of_limit: dict[int, float]  # share of the machine's limit
    ratio: dict[int, float]  # how many times as fast as the first row, median over the rounds


def network_rows(
    cfgs: Mapping[str, CfgNode],
    device: torch.device,
    *,
    precisions: Sequence[str] = ("fp32",),
    batches: Sequence[int] = (1, 16),
    runtimes: Sequence[str] = ("eager",),
    rounds: int = 9,
) -> tuple[dict[Variant, Figures], dict[str, float]]:
    """Time networks, by YAML file, in all their pruning modes; a batch size's are interleaved.

    Returns the rows, and the machine's limits in operations per second, by precision; `spread` is
    the largest median of a kernel of these as a multiple of its shortest time.
    """
    rows: dict[Variant, Figures] = {}
    models = {}
    stems = [Path(file).stem for file in cfgs]
    for file, cfg in cfgs.items():
        name = file if stems.count(Path(file).stem) > 1 else Path(file).stem
        prunes = "MODEL.SPARSITY.PRUNE" in model_spec(cfg).export_keys(cfg)
        for mode in prune_modes() if prunes else ("none",):
            cfg, size = changed_cfg(cfg, "MODEL.SPARSITY.PRUNE", mode), tuple(cfg.MODEL.IMAGE_SIZE)
            torch.manual_seed(0)
            models[name, mode] = model, size = build_model(cfg).eval().to(device), size
            numbers = count_macs(model, size), _mparams(model), known_score(cfg, Path(file).stem)
            for runtime, precision in product(runtimes, precisions):
                if precision in RUNTIMES[runtime]:
                    rows[Variant(name, mode, runtime, precision)] = Figures(*numbers, {}, {}, {})
    limits = {"spread": 1.0}
    for batch in batches:
        tasks: dict[Any, tuple[Task, int]] = {}
        kernels = {
            kernel: (operations, precision)
            for precision in (*precisions, "int8")
            for kernel, operations in limit_kernels(device, TYPES.get(precision)).items()
        }
        for row in rows:
            model, size = models[row.network, row.prune]
            crops = torch.randint(0, 256, (batch, *size[::-1], 3), dtype=torch.uint8, device=device)
            runner = build_runner(model, row.runtime, row.precision, size)
            tasks[row] = _lasting(torch.inference_mode()(partial(runner, crops)))
        together = {kernel: kernel for kernel in kernels} | {k: v[0] for k, v in tasks.items()}
        times = interleave(together, rounds, device)
        for kernel, (operations, precision) in kernels.items():
            shortest = min(times[kernel])
            limits[precision] = max(limits.get(precision, 0.0), operations / shortest)
            limits["spread"] = max(limits["spread"], statistics.median(times[kernel]) / shortest)
        seconds = {row: [time / tasks[row][1] for time in times[row]] for row in rows}
        first = next(iter(seconds.values()))
        for row, figures in rows.items():
            median = statistics.median(seconds[row])
            figures.ms[batch] = 1e3 * median / batch
            figures.ratio[batch] = statistics.median(
                a / b for a, b in zip(first, seconds[row], strict=True)
            )
    for row, figures in rows.items():  # a limit is known after the last batch size
        for batch, ms in figures.ms.items():
            figures.of_limit[batch] = 2e12 * figures.gmacs / ms / limits[row.precision]
    return rows, limits


def count_table(cfgs: Mapping[str, CfgNode]) -> str:
    """Return the parameters and multiply-adds of networks as a Markdown table."""
    lines = []
    for file, cfg in cfgs.items():
        model = build_model(cfg)
        macs = count_macs(model, tuple(cfg.MODEL.IMAGE_SIZE))
        lines.append([file, f"{_mparams(model):.2f}", f"{macs:.2f}"])
    return markdown_table(["network", "parameters (M)", "GMACs"], lines)


def _mparams(model: nn.Module) -> float:
    return sum(weight.numel() for weight in model.parameters()) / 1e6


def known_score(cfg: CfgNode, run: str) -> float:
    """Return the primary score in the run's `results.json`; nan if that is of another network.

    It must be of this MODEL and of the weights that the run has now, or of TEST.MODEL_FILE.
    """
    folder = Path(cfg.OUTPUT_DIR) / cfg.DATASET.DATASET / cfg.MODEL.NAME / run
    path, weights = folder / "results.json", Path(cfg.TEST.MODEL_FILE or folder / "final_state.pth")
    if not (path.exists() and weights.exists()):
        return math.nan
    with as_user_error(f"{path}: cannot read the scores; run tools/test.py again"):
        content = read_json(path)
        is_same = CfgNode.load_cfg(content["config"]).MODEL == cfg.MODEL
        is_same &= Path(content["weights"]).resolve() == weights.resolve()
        is_same &= weights.stat().st_mtime <= path.stat().st_mtime
        scores = content["scores"] or {}
        return float(scores.get(content["metric"]["primary"], math.nan)) if is_same else math.nan


def as_networks_table(rows: Mapping[Variant, Figures], limits: Mapping[str, float]) -> str:
    """Return the machine's limits, a warning if it was not steady, and a Markdown table."""
    rates = (f"{name} {rate / 1e9:.0f}" for name, rate in limits.items() if name != "spread")
    text = f"limits, of the fastest large kernels, in GFLOP/s: {', '.join(rates)}"
    if limits["spread"] > 1.1:
        spread = f"{limits['spread']:.2f} times its shortest time"
        text += f"\nwarning: a kernel took {spread} in the median; repeat this on an idle machine"
    batches = next(iter(rows.values())).ms
    columns = [*Variant._fields, "GMACs", "params (M)", "score"]
    columns += [f"{name}, batch {b}" for b in batches for name in ("ms", "of limit", "× row 1")]
    lines = []
    for row, figures in rows.items():
        score = "" if math.isnan(figures.score) else f"{figures.score:.2f}"
        line = [*row, f"{figures.gmacs:.2f}", f"{figures.mparams:.2f}", score]
        for b in batches:
            line += [
                f"{number:.2f}" for number in (figures.ms[b], figures.of_limit[b], figures.ratio[b])
            ]
        lines.append(line)
    return f"{text}\n\n{markdown_table(columns, lines)}"


def networks_plot(rows: Mapping[Variant, Figures]) -> Figure:
    """Draw the score of every row, or its GMACs unless all scores are known, against its time."""
    batch = next(iter(next(iter(rows.values())).ms))
    has_scores = not any(math.isnan(figures.score) for figures in rows.values())
    figure, (axes,) = new_panels(
        height=3.6, xscale="log", yscale="linear" if has_scores else "log",
        xlabel=f"ms per image, batch {batch}", ylabel="score" if has_scores else "GMACs",
    )  # fmt: skip
    series, kinds = (
        list(dict.fromkeys(keys)) for keys in zip(*((r[:2], r[2:]) for r in rows), strict=True)
    )
    for row, figures in rows.items():
        index = series.index(row[:2])
        color = line_style(index)["color"]
        marker = kinds.index(row[2:]) + len(kinds) * (index // _COLORS)
        axes.plot(
            figures.ms[batch], figures.score if has_scores else figures.gmacs, linestyle="",
            color=color, marker=_MARKERS[marker % len(_MARKERS)], markersize=4,
            label=", ".join(row).replace("$", r"\$"),
        )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    figure.legend(loc="outside right upper", frameon=False, fontsize=FONT)
    return figure


def _lasting(task: Task) -> tuple[Task, int]:
    """Repeat a task until it lasts long enough to be timed; return how often too."""
    task()
    begin = time.perf_counter()
    task()
    count = max(1, math.ceil(_LASTING / (time.perf_counter() - begin)))

    def run() -> None:
        for _ in range(count):
            task()

    return run, count
