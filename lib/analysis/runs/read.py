"""Reading runs from disk: the history of the training, and the last test."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.config.load import parse_yaml
from lib.core import training_checkpoint
from lib.dataset import PoseDataset, build_dataset
from lib.dataset.predictions import Predictions
from lib.metrics import Metric, build_metric
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import read_json
from lib.utils.text import shorten

History = dict[str, dict[int, float]]  # name of a value -> epoch, from 0 -> value

_MAX_DIFFERENCE = 1e-6  # of scores computed from the same files


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions that give exactly the scores in `results.json`, and the people they are of."""

    predictions: Predictions
    dataset: PoseDataset


@dataclass(eq=False)
class Run:
    """A run's folder, as far as it can be read; `notes` say, one line each, what is missing.

    The history is empty if there is none. `metric` is None if the run has neither test results nor
    a checkpoint; `data` describes the people of its last test, None if it is not tested.
    """

    folder: Path
    name: str
    history: History = field(default_factory=dict)
    metric: Metric | None = None
    data: str | None = None
    evaluation: Evaluation | None = None
    notes: list[str] = field(default_factory=list)


def read_runs(folders: Sequence[Path], data_dir: str | None = None) -> tuple[list[Run], list[str]]:
    """Read runs, each once; return them and a line for each folder that is not a run.

    `data_dir` replaces the DATA_DIR of the runs' configurations. UserError if the runs have
    different metrics or joints.
    """
    runs, notes = [], []
    for folder in {folder.resolve(): folder for folder in folders}.values():
        try:
            runs.append(read_run(folder, data_dir))
        except UserError as error:
            notes.append(str(error))
    kinds = {
        f"{run.metric.name} of {run.evaluation.dataset.skeleton.name}"
        for run in runs
        if run.metric and run.evaluation
    }
    if len(kinds) > 1:
        raise UserError(
            f"the runs have different metrics ({', '.join(kinds)}): plot them separately"
        )
    several_sets = len({run.data for run in runs if run.data}) > 1
    if several_sets:
        notes.append("not all runs were tested on the same people: their scores are not comparable")
    for run, name in zip(runs, run_names([run.folder for run in runs]), strict=True):
        run.name = f"{name} ({run.data or 'not tested'})" if several_sets else name
    return runs, notes


def run_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by their path below their common folder; a single one by its last two names."""
    paths = [folder.resolve() for folder in folders]
    if len(paths) < 2:
        return ["/".join(path.parts[-2:]) for path in paths]
    base = os.path.commonpath(paths)
    return [shorten(os.path.relpath(path, base)) for path in paths]


def read_run(folder: Path, data_dir: str | None = None) -> Run:
    """Read one run's folder; UserError if it has neither history nor results."""
    history_path, results_path = folder / "history.json", folder / "results.json"
    if not (history_path.exists() or results_path.exists()):
        raise UserError(f"{folder}: not a run, it has no history.json and no results.json")
    run = Run(folder, folder.name)
    if history_path.exists():
        with as_user_error(f"{history_path} is damaged"):
            run.history = read_history(history_path)
    try:
        with as_user_error(f"{results_path} is damaged"):
            _read_test(run, results_path, data_dir)
    except UserError as error:
        run.notes.append(f"{folder}: {error}; no predictions are plotted")
    return run


def read_history(path: Path) -> History:
    """Read the numbers in a `history.json`; UserError if it cannot be read."""
    history: History = {}
    for entry in read_json(path):
        epoch = entry.pop("epoch")
        for name, value in entry.items():
            name = "lr" if name == "rate" else name  # of older runs
            history.setdefault(name, {})[epoch] = math.nan if value is None else float(value)
    return history


def _read_test(run: Run, path: Path, data_dir: str | None) -> None:
    """Read the last test of a run into it; UserError says what is missing.

    An untested run has the metric of its checkpoint. Predictions that do not give the scores in
    `results.json` are an error.
    """
    if not path.exists():
        checkpoints = training_checkpoint.candidates(run.folder / "checkpoint.pth")
        if checkpoints:
            file, content = training_checkpoint.read(checkpoints)
            run.metric = build_metric(_read_config(content["provenance"]["config"], file))
        raise UserError("not tested yet, see tools/test.py")
    results = read_json(path)
    cfg, data, scores = _read_config(results["config"], path), results["data"], results["scores"]
    cfg.DATA_DIR = cfg.DATA_DIR if data_dir is None else data_dir
    metric = run.metric = build_metric(cfg)
    run.data = f"{data['set']}, {data['people']} people, {data['fingerprint'][:6]}"
    if scores is None:
        raise UserError(f"the set {cfg.DATASET.TEST_SET} has no annotation to score with")
    dataset = build_dataset(cfg, "test")
    predictions = metric.load_predictions(run.folder, dataset)
    recomputed = metric.evaluate(predictions, dataset)
    stored = np.array(list(scores.values()), dtype=np.float64)  # JSON's null becomes nan
    computed = [recomputed.get(name, math.nan) for name in scores]
    if not np.allclose(stored, computed, rtol=0, atol=_MAX_DIFFERENCE, equal_nan=True):
        raise UserError(
            f"{metric.primary} is {scores.get(metric.primary)} in results.json, but "
            f"{recomputed[metric.primary]} by the predictions and {dataset.annotation.path}"
        )
    run.evaluation = Evaluation(predictions, dataset)


def _read_config(dump: str, path: Path) -> CfgNode:
    """A configuration that a run dumped; keys that this version does not know are ignored."""
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.merge_from_other_cfg(CfgNode(parse_yaml(dump, f"{path}: `config`")))
    return cfg
