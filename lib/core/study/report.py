"""What a study found: tables, the differences and how sure they are, and the way there."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from yacs.config import CfgNode

from lib.core.benchmark.measure import count_macs, interleave
from lib.core.evaluate import load_gt, load_predictions, pckh_by_part
from lib.core.runs.plots import scores_by_epoch
from lib.core.study.definition import Study, Variant
from lib.core.study.plots import scores_by_seed
from lib.core.study.run import gt_path, is_done
from lib.core.study.significance import difference, hits
from lib.models import build_model
from lib.utils.drawing import save_image
from lib.utils.files import read_json, replacing
from lib.utils.plot import picture
from lib.utils.text import markdown_table

_THRESHOLDS = (0.5, 0.1)
_LEGEND = (
    "*Difference* is that of the mean PCKh@0.5, with the interval that holds 95 % of 10,000 "
    "resamplings of people and seeds, paired; bold where it leaves out 0. Where it spans 0 nothing "
    "is claimed. Of one seed it is over people alone, and says nothing of other seeds: never bold."
)


@dataclass(frozen=True, eq=False)
class _Row:
    """A variant as far as it is done: what was predicted, [N,16,2] by seed."""

    variant: Variant
    cfg: CfgNode
    folders: dict[int, Path]
    predictions: dict[int, np.ndarray]


def write_report(study: Study, device: torch.device, opts: list[str]) -> Path | None:
    """Write `RESULTS.md` and its plots on what is done so far; None where nothing is.

    Only seeds that both have are compared. UserError where the people tested have no annotation.
    """
    rows = {name: row for name in study.variants if (row := _read(study, name, opts)).folders}
    if not rows:
        return None
    cfg = next(iter(rows.values())).cfg
    gt = load_gt(gt_path(study, cfg))
    people = gt["jnt_missing"].shape[1]
    sections = [
        f"# {study.path.stem}",
        f"Variants of `{study.cfg.name}`, seeds {', '.join(map(str, study.seeds))}; PCKh on "
        f"{people} people of `{cfg.DATASET.ROOT}`, mean over seeds. {_LEGEND} *ms* is of an image "
        f"in a batch of 16, fp32, eager, on the {device.type} with {torch.get_num_threads()} "
        "threads, all variants taking turns.",
        _summary(study, rows, gt, _costs({name: row.cfg for name, row in rows.items()}, device)),
    ]
    retests = _retests(rows, gt)
    if retests:
        sections += ["## The same weights, tested otherwise than trained", retests]
    for threshold in _THRESHOLDS:
        sections += [f"## PCKh@{threshold} by joint", _by_joint(rows, gt, threshold)]
    folder = study.folder(cfg)
    by_seed = {name: [float(mean) for mean in _means(row, gt)[:, 0]] for name, row in rows.items()}
    save_image(folder / "seeds.png", picture(scores_by_seed(by_seed)))
    sections += ["![Scores by seed](seeds.png)"]
    curves = _curves(rows)
    if curves:
        save_image(folder / "curves.png", picture(scores_by_epoch(curves)))
        sections += ["![Training curves](curves.png)"]
    path = folder / "RESULTS.md"
    with replacing(path) as aside:
        aside.write_text("\n\n".join(sections) + "\n")
    return path


def _read(study: Study, name: str, opts: list[str]) -> _Row:
    variant, folders = study.variants[name], {}
    for seed in study.seeds:
        cfg = study.configuration(variant, seed, opts)
        folder = study.folder(cfg, variant, seed)
        if is_done(folder, cfg):
            folders[seed] = folder
    predictions = {seed: load_predictions(path / "pred.mat") for seed, path in folders.items()}
    return _Row(variant, study.configuration(variant, study.seeds[0], opts), folders, predictions)


def _summary(
    study: Study,
    rows: dict[str, _Row],
    gt: dict[str, np.ndarray],
    costs: dict[str, tuple[float, ...]],
) -> str:
    columns = (
        "variant", "seeds", "PCKh@0.5", "± over seeds", f"difference to {study.baseline}",
        "PCKh@0.1", "ms", "GMACs", "Mparams",
    )  # fmt: skip
    lines = []
    for name, row in rows.items():
        means = _means(row, gt)
        spread = f"{statistics.stdev(means[:, 0]):.2f}" if len(means) > 1 else "–"
        at_half, at_tenth = (f"{mean:.2f}" for mean in means.mean(axis=0))
        compared = "–" if name == study.baseline else _compared(row, rows.get(study.baseline), gt)
        cost = (f"{value:.3f}" for value in costs[name])
        lines.append((name, str(len(means)), at_half, spread, compared, at_tenth, *cost))
    return markdown_table(columns, lines)


def _retests(rows: dict[str, _Row], gt: dict[str, np.ndarray]) -> str:
    """A table of those that test another's weights, compared with that other; empty without."""
    lines = [
        (name, row.variant.weights_of, _compared(row, rows.get(row.variant.weights_of), gt))
        for name, row in rows.items()
        if row.variant.weights_of is not None
    ]
    return markdown_table(("tested", "weights of", "difference to these"), lines) if lines else ""


def _by_joint(rows: dict[str, _Row], gt: dict[str, np.ndarray], threshold: float) -> str:
    columns: Sequence[str] = ()
    lines = []
    for name, row in rows.items():
        found = [pckh_by_part(pred, gt, [threshold]) for pred in row.predictions.values()]
        columns = list(found[0])
        means = (statistics.fmean(float(part[key][0]) for part in found) for key in columns)
        lines.append((name, *(f"{mean:.2f}" for mean in means)))
    return markdown_table(("variant", *columns), lines)


def _means(row: _Row, gt: dict[str, np.ndarray]) -> np.ndarray:
    """The mean PCKh by seed and threshold, [seeds,2]."""
    found = [pckh_by_part(pred, gt, _THRESHOLDS) for pred in row.predictions.values()]
    return np.array([scores["Mean"] for scores in found])


def _compared(row: _Row, other: _Row | None, gt: dict[str, np.ndarray]) -> str:
    seeds = [seed for seed in row.predictions if other and seed in other.predictions]
    if not seeds:
        return "–"
    ours, theirs = (
        np.stack([hits(which.predictions[seed], gt) for seed in seeds]) for which in (row, other)
    )
    found = difference(theirs, ours)
    text = f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return f"**{text}**" if found.is_sure and len(seeds) > 1 else text


def _costs(cfgs: dict[str, CfgNode], device: torch.device) -> dict[str, tuple[float, ...]]:
    """Of each variant: ms an image, GMACs an image, parameters in millions."""
    models = {name: build_model(cfg).eval().to(device) for name, cfg in cfgs.items()}
    size = tuple(next(iter(cfgs.values())).MODEL.IMAGE_SIZE)
    images = torch.randn(16, 3, size[1], size[0], device=device)

    def run(name: str) -> None:
        with torch.inference_mode():
            models[name](images)

    times = interleave({name: lambda name=name: run(name) for name in models}, 9, device)
    return {
        name: (
            1e3 * statistics.median(times[name]) / len(images),
            count_macs(model, size),
            sum(weight.numel() for weight in model.parameters()) / 1e6,
        )
        for name, model in models.items()
    }


def _curves(rows: dict[str, _Row]) -> dict[str, np.ndarray]:
    """PCKh@0.5 after each epoch, mean over seeds, of the variants that were trained."""
    return {
        name: np.mean([_history(folder) for folder in row.folders.values()], axis=0)
        for name, row in rows.items()
        if row.variant.weights_of is None
    }


def _history(folder: Path) -> list[float]:
    means = [now.get("Mean") for now in read_json(folder / "history.json")]
    return [math.nan if mean is None else mean for mean in means]
