"""What a study found: a table, the differences and how sure they are, and the way there."""

import statistics
from pathlib import Path

import numpy as np
import torch
from yacs.config import CfgNode

from lib.core.benchmark import count_macs, interleave
from lib.core.evaluate import load_gt, load_predictions
from lib.core.run_plots import scores_by_epoch
from lib.core.significance import Difference, difference, hits
from lib.core.study import Study, Variant, is_done
from lib.dataset import build_dataset
from lib.models import build_model
from lib.utils.drawing import save_image
from lib.utils.files import read_json, replacing
from lib.utils.plot import picture

_COLUMNS = (
    "Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Mean", "Mean@0.1",
)  # fmt: skip


def write_report(study: Study, device: torch.device, opts: list[str]) -> Path | None:
    """Write `RESULTS.md` and its plots on what is done so far; None where nothing is.

    Only seeds that a variant and the baseline both have are compared.
    """
    done = {
        variant.name: [
            seed
            for seed in study.seeds
            if is_done(
                _folder(study, variant, seed, opts), study.configuration(variant, seed, opts)
            )
        ]
        for variant in study.variants.values()
    }
    rows = [study.variants[name] for name, seeds in done.items() if seeds]
    if not rows:
        return None
    cfgs = {row.name: study.configuration(row, done[row.name][0], opts) for row in rows}
    folder = study.folder(next(iter(cfgs.values())))
    costs = _costs(cfgs, device)
    lines = [
        f"# {study.path.stem}",
        "",
        f"Built upon `{study.cfg.name}`; PCKh on {_people(cfgs[rows[0].name])} people, mean over "
        "seeds ± standard deviation. *Difference* is that of the mean PCKh@0.5 to "
        f"`{study.baseline}`, with the interval that holds 95 % of 10,000 resamplings of people "
        "and seeds (bold where it leaves out 0; where it spans 0 nothing is claimed). *ms* is of "
        "an image in a batch of 16, fp32, eager, all variants taking turns.",
        "",
        f"| variant | seeds | {' | '.join(_COLUMNS)} | ± | difference | ms | GMACs | Mparams |",
        "|" + "---|" * (len(_COLUMNS) + 7),
    ]
    for row in rows:
        scores = [_results(study, row, seed, opts)["scores"] for seed in done[row.name]]
        means = [f"{statistics.fmean(s[name] for s in scores):.2f}" for name in _COLUMNS]
        spread = statistics.stdev(s["Mean"] for s in scores) if len(scores) > 1 else None
        shared = [seed for seed in done[row.name] if seed in done[study.baseline]]
        cells = [
            row.name,
            str(len(scores)),
            *means,
            "–" if spread is None else f"{spread:.2f}",
            _compared(study, row, shared, opts),
            *(f"{value:.2f}" for value in costs[row.name]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "![Training curves](curves.png)", ""]
    save_image(folder / "curves.png", _curves(study, rows, done, opts))
    path = folder / "RESULTS.md"
    with replacing(path) as aside:
        aside.write_text("\n".join(lines))
    return path


def _compared(study: Study, row: Variant, seeds: list[int], opts: list[str]) -> str:
    if row.name == study.baseline or not seeds:
        return "–"
    ours, theirs = (
        np.stack([_hits(study, variant, seed, opts) for seed in seeds])
        for variant in (row, study.variants[study.baseline])
    )
    return _told(difference(theirs, ours))


def _told(found: Difference) -> str:
    text = f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return f"**{text}**" if found.is_sure else text


def _folder(study: Study, variant: Variant, seed: int, opts: list[str]) -> Path:
    return study.folder(study.configuration(variant, seed, opts), variant, seed)


def _results(study: Study, variant: Variant, seed: int, opts: list[str]) -> dict:
    return read_json(_folder(study, variant, seed, opts) / "results.json")


def _hits(study: Study, variant: Variant, seed: int, opts: list[str]) -> np.ndarray:
    cfg = study.configuration(variant, seed, opts)
    gt = load_gt(build_dataset(cfg, "test").gt_path)
    return hits(load_predictions(_folder(study, variant, seed, opts) / "pred.mat"), gt)


def _people(cfg: CfgNode) -> int:
    return len(build_dataset(cfg, "test"))


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


def _curves(
    study: Study, rows: list[Variant], done: dict[str, list[int]], opts: list[str]
) -> np.ndarray:
    """PCKh@0.5 after each epoch, mean over seeds, of the variants that were trained."""
    curves = {
        row.name: np.mean(
            [
                [now["Mean"] for now in read_json(_folder(study, row, seed, opts) / "history.json")]
                for seed in done[row.name]
            ],
            axis=0,
        )
        for row in rows
        if row.weights_of is None
    }
    return picture(scores_by_epoch(curves))
