"""What a run left on disk: the history of its training, and its last test."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from lib.config import get_cfg
from lib.config.load import parse_yaml
from lib.dataset import PoseDataset, build_dataset
from lib.dataset.predictions import Predictions
from lib.metrics import Metric, build_metric
from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import shorten

History = dict[str, dict[int, float]]  # name of a value -> epochs done -> value; nan if not finite

_MAX_DIFFERENCE = 1e-6  # of scores computed from the same files


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions that give exactly the scores in `results.json`, and the people they are of."""

    predictions: Predictions
    dataset: PoseDataset


@dataclass(frozen=True, eq=False)
class Run:
    """A run's folder, as far as it can be read; `notes` say, one line each, what is missing.

    The history is empty if there is none. `metric` and `data`, a description of the people tested,
    are those of `results.json`; they are None if the run is not tested.
    """

    folder: Path
    name: str
    history: History
    metric: Metric | None
    data: str | None
    evaluation: Evaluation | None
    notes: tuple[str, ...]


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
        raise UserError(f"the runs have different metrics ({', '.join(kinds)}): plot them apart")
    names = run_names([run.folder for run in runs])
    runs = [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    if len({run.data for run in runs if run.data}) > 1:
        notes.append("not all runs were tested on the same people: their scores do not compare")
        runs = [replace(run, name=f"{run.name} ({run.data or 'not tested'})") for run in runs]
    return runs, notes


def run_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by their path below the folder that holds all; one alone by two parts."""
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
    run = Run(folder, folder.name, {}, None, None, None, ())
    notes = []
    try:
        run = replace(run, history=read_history(history_path))
    except UserError as error:
        notes.append(str(error))
    try:
        if not results_path.exists():
            raise UserError(f"{folder}: not tested yet, see tools/test.py")
        results = read_json(results_path)
        cfg = _read_config(results, results_path, data_dir)
        metric = build_metric(cfg)
        run = replace(run, metric=metric, data=_describe_data(results))
        run = replace(run, evaluation=_read_evaluation(folder, results, cfg, metric))
    except UserError as error:
        notes.append(f"{error}; no predictions are plotted")
    return replace(run, notes=tuple(notes))


def read_history(path: Path) -> History:
    """Read the numbers in a `history.json`; UserError if it is missing or damaged."""
    entries = read_json(path)
    history: History = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict) or type(entry.get("epoch")) is not int:
            raise UserError(f"{path}: must be a list of objects, each with a whole number `epoch`")
        for name, value in entry.items():
            if name != "epoch" and (value is None or type(value) in (int, float)):
                name = "lr" if name == "rate" else name  # of older runs
                number = math.nan if value is None or not math.isfinite(value) else float(value)
                history.setdefault(name, {})[entry["epoch"] + 1] = number
    return history


def _read_config(results: Any, path: Path, data_dir: str | None) -> CfgNode:
    """The configuration of a test; keys that this version does not know are ignored."""
    if not isinstance(results, dict) or not isinstance(results.get("config"), str):
        raise UserError(f"{path}: must be an object with `scores`, `config` and `data`")
    cfg = get_cfg()
    _merge_known(cfg, parse_yaml(results["config"], f"{path}: `config`"))
    if data_dir is not None:
        cfg.DATA_DIR = data_dir
    return cfg


def _merge_known(cfg: CfgNode, values: Mapping[Any, Any]) -> None:
    for name, value in values.items():
        default = cfg.get(name)
        if isinstance(default, CfgNode) and isinstance(value, Mapping):
            _merge_known(default, value)
        elif type(value) is type(default):
            cfg[name] = value


def _describe_data(results: dict[str, Any]) -> str | None:
    data = results.get("data")
    if not isinstance(data, dict):
        return None
    fingerprint = str(data.get("fingerprint"))[:6]
    return shorten(f"{data.get('set')}, {data.get('people')} people, {fingerprint}")


def _read_evaluation(
    folder: Path, results: dict[str, Any], cfg: CfgNode, metric: Metric
) -> Evaluation:
    """Read the predictions; UserError unless they give the scores in `results.json`."""
    scores, primary = results.get("scores"), metric.primary
    if not isinstance(scores, dict):
        raise UserError(f"{folder}: the set {cfg.DATASET.TEST_SET} has no annotation to score with")
    try:
        dataset = build_dataset(cfg, "test")
        predictions = metric.load_predictions(folder, dataset)
        recomputed = metric.evaluate(predictions, dataset)
    except UserError as error:
        raise UserError(f"{folder}: {primary} is {scores.get(primary)}; {error}") from None
    if not all(_is_same(value, recomputed.get(name)) for name, value in scores.items()):
        raise UserError(
            f"{folder}: {primary} is {scores.get(primary)} in results.json, but "
            f"{recomputed[primary]} by the predictions and {dataset.annotation.path}"
        )
    return Evaluation(predictions, dataset)


def _is_same(stored: Any, recomputed: float | None) -> bool:
    """Whether two scores are equal; JSON has null for nan."""
    if recomputed is None or stored is None or type(stored) not in (int, float):
        return stored is None and (recomputed is None or math.isnan(recomputed))
    return math.isclose(stored, recomputed, rel_tol=0, abs_tol=_MAX_DIFFERENCE)
