"""The report of a study: scores, differences with their intervals, and times."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from yacs.config import CfgNode

from lib.analysis.benchmark.measure import interleave
from lib.analysis.benchmark.rows import build_network, prepare
from lib.analysis.study.definition import Study
from lib.dataset import build_dataset
from lib.metrics import Metric, build_metric
from lib.utils.files import write_bytes
from lib.utils.plot import FONT, line_style, new_panels, render
from lib.utils.text import markdown_table

_BATCH = 16  # images of each timed run
_LEGEND = (
    "*Difference* has the interval of 95 % of 10,000 resamples of people and seeds, paired; bold "
    "if it excludes 0. If it includes 0, nothing is claimed. With one seed it covers people only, "
    "says nothing about other seeds, and is never bold. *ms* is the time of an image in a batch of "
    f"{_BATCH}, fp32, eager, all variants in turn"
)


class _Result(NamedTuple):
    """The scores of a finished job, and the metric's contributions [N, 2]."""

    scores: dict[str, float]
    contributions: np.ndarray


class _Cost(NamedTuple):
    """Milliseconds and multiply-adds (1e9) of an image, parameters in millions."""

    ms: float
    gmacs: float
    mparams: float


Rows = Mapping[str, Mapping[int, _Result]]  # variant -> finished seed -> result


def write_report(study: Study, device: torch.device, opts: Sequence[str]) -> Path | None:
    """Write `RESULTS.md` about the finished variants, compared on common seeds; None if none is."""
    finished = [job for job in study.jobs(opts) if job.is_done]
    if not finished:
        return None
    cfg = finished[0].cfg
    metric, dataset = build_metric(cfg), build_dataset(cfg, "test")
    rows: dict[str, dict[int, _Result]] = {}
    for job in finished:
        data = metric.load_predictions(job.folder, dataset), dataset
        result = _Result(metric.evaluate(*data), metric.contributions(*data))
        rows.setdefault(job.variant, {})[job.seed] = result
    by_seed = {v: [r.scores[metric.primary] for r in row.values()] for v, row in rows.items()}
    better = "higher" if metric.higher_is_better else "lower"
    costs = _costs({job.variant: job.cfg for job in finished}, device)
    digits = metric.digits
    retests = [(v, w, _compare(rows, v, w, digits)) for v, w in study.owners.items() if v in rows]
    sections = [
        f"# {study.path.stem}",
        f"Variants of `{study.cfg.name}`, seeds {', '.join(map(str, study.seeds))}; {metric.name} "
        f"({better} is better) of {len(dataset)} people of `{cfg.DATASET.ROOT}`, mean over seeds. "
        f"{_LEGEND}, on the {device.type} with {torch.get_num_threads()} threads.",
        _summary(rows, by_seed, costs, metric, study.baseline),
    ]
    if retests:
        columns = ("retest", "weights of", "difference to these")
        sections += ["## Retests: the same weights, other keys", markdown_table(columns, retests)]
    sections += ["## All scores", _all_scores(rows, digits)]
    path = study.folder(cfg) / "RESULTS.md"
    trained = {v: values for v, values in by_seed.items() if v not in study.owners}
    write_bytes(path.with_name("scores.png"), render(_plot(trained, costs, metric.name)))
    write_bytes(path, ("\n\n".join(sections) + "\n").encode())
    return path


def _summary(
    rows: Rows,
    scores: Mapping[str, list[float]],
    costs: Mapping[str, _Cost],
    metric: Metric,
    base: str,
) -> str:
    columns = [metric.name, "± over seeds", f"difference to {base}", "ms", "GMACs", "Mparams"]
    lines, digits = [], metric.digits
    for name, values in scores.items():
        mean = f"{fmean(values):.{digits}f}"
        deviation = f"{stdev(values):.{digits}f}" if len(values) > 1 else "–"
        compared = "–" if name == base else _compare(rows, name, base, digits)
        cost = (f"{x:.3f}" for x in costs[name])
        lines.append((name, str(len(values)), mean, deviation, compared, *cost))
    return markdown_table(["variant", "seeds", *columns], lines)


def _all_scores(rows: Rows, digits: int) -> str:
    """Return the mean over seeds of every score, a line for each variant."""
    names, lines = [], []
    for variant, row in rows.items():
        results = [result.scores for result in row.values()]
        names = list(results[0])
        means = (fmean(result[name] for result in results) for name in names)
        lines.append([variant, *(f"{mean:.{digits}f}" for mean in means)])
    return markdown_table(["variant", *names], lines)


def _compare(rows: Rows, name: str, other: str, digits: int) -> str:
    """Return the difference between two variants and its interval."""
    seeds = [seed for seed in rows.get(name, {}) if seed in rows.get(other, {})]
    if not seeds:
        return "–"
    ours, theirs = (
        np.stack([rows[variant][seed].contributions for seed in seeds]) for variant in (name, other)
    )
    mean, low, high = difference(theirs, ours)
    text = "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(mean, low, high, d=digits)
    return f"**{text}**" if (low > 0 or high < 0) and len(seeds) > 1 else text


class Difference(NamedTuple):
    """Difference of two mean scores, and its 95 % interval."""

    mean: float
    low: float
    high: float


def difference(a: np.ndarray, b: np.ndarray, rounds: int = 10_000, seed: int = 0) -> Difference:
    """Score of `b` minus that of `a`, both [seeds, N, 2], as of `Metric.contributions`.

    Both are of the same people and seeds, in the same order. A two-level bootstrap (Efron 1979):
    each round draws seeds and people with replacement; the interval is from the percentiles.
    """
    assert a.shape == b.shape, (a.shape, b.shape)
    seeds, people, _ = a.shape
    generator = np.random.default_rng(seed)
    samples = np.empty(rounds)
    for number in range(rounds):
        counts = np.bincount(generator.integers(people, size=people), minlength=people)
        by_seed = _scores_of(b, counts) - _scores_of(a, counts)
        samples[number] = by_seed[generator.integers(seeds, size=seeds)].mean()
    low, high = np.percentile(samples, (2.5, 97.5))
    everyone = np.ones(people)
    mean = (_scores_of(b, everyone) - _scores_of(a, everyone)).mean()
    return Difference(float(mean), float(low), float(high))


def _scores_of(contributions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Score of each seed, [seeds], if each person occurs `counts` [N] times."""
    total, weight = (counts.astype(np.float64) @ contributions).T
    return total / weight


def _costs(cfgs: Mapping[str, CfgNode], device: torch.device) -> dict[str, _Cost]:
    """Return what each variant's network costs, measured in turn."""
    networks = {name: build_network(cfg, device) for name, cfg in cfgs.items()}
    ways = (device, "infer", "eager", "fp32", _BATCH)
    tasks = {name: prepare(network, *ways) for name, network in networks.items()}
    times = interleave(tasks, 9, device)
    return {
        name: _Cost(1e3 * median(times[name]) / _BATCH, network.gmacs, network.mparams)
        for name, network in networks.items()
    }


def _plot(scores: Mapping[str, Sequence[float]], costs: Mapping[str, _Cost], metric: str) -> Figure:
    """Draw each variant's score, mean and range over its seeds, against its time."""
    figure, (axes,) = new_panels(
        height=3.0, xlabel=f"ms per image in a batch of {_BATCH}", ylabel=metric
    )
    for index, (name, values) in enumerate(scores.items()):
        color, mean = line_style(index)["color"], fmean(values)
        reach = [[mean - min(values)], [max(values) - mean]]
        axes.errorbar(costs[name].ms, mean, reach, fmt="o", color=color, markersize=5, label=name)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=FONT)
    return figure
