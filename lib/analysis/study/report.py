"""The report of a study: scores, differences with their intervals, and times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np
import torch

from lib.analysis.benchmark.measure import interleave
from lib.analysis.macs import count_macs
from lib.analysis.study.definition import Job, Study
from lib.analysis.study.significance import difference
from lib.dataset import build_dataset
from lib.metrics import build_metric
from lib.models import build_model
from lib.utils.files import write_bytes
from lib.utils.text import markdown_table

_BATCH = 16  # images of each timed run
_LEGEND = (
    "*Difference* has the interval of 95 % of 10,000 resamples of people and seeds, paired; bold "
    "if it excludes 0. If it includes 0, nothing is claimed. With one seed it covers people only, "
    "says nothing about other seeds, and is never bold. *ms* is the time of an image in a batch of "
    f"{_BATCH}, fp32, eager, all variants in turn"
)


@dataclass(frozen=True, eq=False)
class _Result:
    """A finished job: its scores, and the metric's contributions [N, 2]."""

    job: Job
    scores: dict[str, float]
    contributions: np.ndarray


Rows = Mapping[str, Mapping[int, _Result]]  # variant -> finished seed -> result


def write_report(study: Study, device: torch.device, opts: Sequence[str]) -> Path | None:
    """Write `RESULTS.md` about all finished variants; None if there are none.

    Variants are compared on the seeds that both have.
    """
    finished = [job for job in study.jobs(opts) if job.is_done]
    if not finished:
        return None
    cfg = finished[0].cfg
    metric, dataset = build_metric(cfg), build_dataset(cfg, "test")
    rows: dict[str, dict[int, _Result]] = {}
    for job in finished:
        predictions = metric.load_predictions(job.folder, dataset)
        scores = metric.evaluate(predictions, dataset)
        contributions = metric.contributions(predictions, dataset)
        rows.setdefault(job.variant, {})[job.seed] = _Result(job, scores, contributions)
    by_seed = {v: [r.scores[metric.primary] for r in row.values()] for v, row in rows.items()}
    better = "higher" if metric.higher_is_better else "lower"
    retests = [(v, w, _compare(rows, v, w)) for v, w in study.owners.items() if v in rows]
    sections = [
        f"# {study.path.stem}",
        f"Variants of `{study.cfg.name}`, seeds {', '.join(map(str, study.seeds))}; {metric.name} "
        f"({better} is better) of {len(dataset)} people of `{cfg.DATASET.ROOT}`, mean over seeds. "
        f"{_LEGEND}, on the {device.type} with {torch.get_num_threads()} threads.",
        _summary(rows, by_seed, metric.name, study.baseline, device),
    ]
    if retests:
        columns = ("retest", "weights of", "difference to these")
        sections += ["## Retests: the same weights, other keys", markdown_table(columns, retests)]
    sections += ["## All scores", _all_scores(rows)]
    path = study.folder(cfg) / "RESULTS.md"
    write_bytes(path, ("\n\n".join(sections) + "\n").encode())
    return path


def _summary(
    rows: Rows,
    scores: Mapping[str, Sequence[float]],
    metric: str,
    baseline: str,
    device: torch.device,
) -> str:
    columns = (
        "variant", "seeds", metric, "± over seeds", f"difference to {baseline}",
        "ms", "GMACs", "Mparams",
    )  # fmt: skip
    costs = _costs([next(iter(row.values())).job for row in rows.values()], device)
    lines = []
    for (name, values), cost in zip(scores.items(), costs, strict=True):
        mean = f"{fmean(values):.2f}"
        deviation = f"{stdev(values):.2f}" if len(values) > 1 else "–"
        compared = "–" if name == baseline else _compare(rows, name, baseline)
        lines.append((name, str(len(values)), mean, deviation, compared, *cost))
    return markdown_table(columns, lines)


def _all_scores(rows: Rows) -> str:
    lines = []
    for variant, row in rows.items():
        results = list(row.values())
        names = list(results[0].scores)
        means = (fmean(result.scores[name] for result in results) for name in names)
        lines.append((variant, *(f"{mean:.2f}" for mean in means)))
    return markdown_table(("variant", *names), lines)


def _compare(rows: Rows, name: str, other: str) -> str:
    """Return the difference between two variants and its interval."""
    seeds = [seed for seed in rows.get(name, {}) if seed in rows.get(other, {})]
    if not seeds:
        return "–"
    ours, theirs = (
        np.stack([rows[variant][seed].contributions for seed in seeds]) for variant in (name, other)
    )
    mean, low, high = difference(theirs, ours)
    text = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"**{text}**" if (low > 0 or high < 0) and len(seeds) > 1 else text


def _costs(jobs: Sequence[Job], device: torch.device) -> list[list[str]]:
    """Return ms and GMACs of an image, and parameters in millions, of each job's network."""
    models = [build_model(job.cfg).eval().to(device) for job in jobs]
    width, height = jobs[0].cfg.MODEL.IMAGE_SIZE
    images = torch.randn(_BATCH, 3, height, width, device=device)
    with torch.inference_mode():
        times = interleave({model: partial(model, images) for model in models}, 9, device)
    costs = []
    for model, seconds in times.items():
        ms = 1e3 * median(seconds) / _BATCH
        parameters = sum(weight.numel() for weight in model.parameters()) / 1e6
        costs.append([f"{x:.3f}" for x in (ms, count_macs(model, (width, height)), parameters)])
    return costs
