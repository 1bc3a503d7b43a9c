"""What runs left on disk, read again as far as it can be: the way of a training, and its test."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lib.config import get_cfg
from lib.config.load import parse_yaml
from lib.core.evaluate import load_gt, load_predictions, pckh
from lib.core.results import scalar_tag
from lib.dataset.mpii import find_gt
from lib.utils.errors import UserError
from lib.utils.event_files import read_scalars
from lib.utils.files import read_json
from lib.utils.text import brief, can_be_path, some

T = TypeVar("T")
History = dict[str, dict[int, float]]  # by the names of HISTORY, then by epochs done

HISTORY = ("loss", "rate", "Mean", "Mean@0.1")  # what is read of each epoch
_DEPTHS = (3, 5)  # <dataset>/<model>/<run>, and a study's .../<study>/<variant>/seed_N
_LONG, _LONGEST = 32, 48  # letters in a name that asks for shortening, and in any
_LARGEST = 3e38  # of a loss, which has 32 bits
_SAME = 1e-6  # percent by which scores may differ that are made of the same files


@dataclass(frozen=True, eq=False)
class Scored:
    """A run's last test: on which people, and the scores of `pckh`, nan where there is none.

    `predictions` [N,16,2] and `gt`, as of `load_gt`, give just these scores; None where they lack.
    """

    people: str  # the set and how many they are
    fingerprint: str
    scores: dict[str, float]
    predictions: np.ndarray | None = None
    gt: dict[str, np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """A run's folder as far as it can be read; `faults` tells what cannot be, a line each.

    Values of the history may be nan; it is empty where there is none.
    """

    folder: Path
    name: str
    history: History
    tested: Scored | None
    faults: tuple[str, ...]


def read_runs(
    folders: Sequence[Path], data_dir: str | None = None, log_dir: str | None = None
) -> tuple[list[Run], list[str]]:
    """Read runs, each once, and say of each folder that is no run why, in a line.

    `data_dir` and `log_dir` replace the DATA_DIR and LOG_DIR of the runs' own configurations.
    """
    folders = list({folder.resolve(): folder for folder in folders}.values())
    runs, faults = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder, data_dir, log_dir))
        except UserError as error:
            faults.append(str(error))
        except OSError as error:
            faults.append(f"{folder}: cannot be read: {error.strerror}")
    names = short_names([run.folder for run in runs])
    if len({run.tested.fingerprint for run in runs if run.tested}) > 1:
        faults.append(
            "not all runs were tested on the same people (see the legend): "
            "their scores do not compare"
        )
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)], faults


def read_run(folder: Path, data_dir: str | None = None, log_dir: str | None = None) -> Run:
    """Read one run's folder, whose name it gets; UserError where it holds nothing of a run."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    faults: list[str] = []
    results = _tried(_read_results, folder / "results.json", faults)
    history = _tried(_read_history, folder / "history.json", faults) or {}
    config = {} if results is None else _config(results, folder / "results.json", faults)
    logs = log_dir or _text(config, "LOG_DIR") or get_cfg().LOG_DIR
    first = min((min(line) for line in history.values() if line), default=math.inf)
    if first > 1:  # runs from before there was a history.json go on into one that begins later
        history = _joined(history, _read_logs(folder, logs, faults), first)
    if results is None and not history and not faults:
        below = [*sorted(folder.glob("*/results.json")), *sorted(folder.glob("*/*/results.json"))]
        mend = f"; {below[0].parent} is one" if below else f", no TensorBoard logs under {logs}"
        raise UserError(f"{folder}: is no run: no results.json, no history.json{mend}")
    if not (folder / "results.json").exists():
        faults.append(f"{folder}: not tested yet (no results.json), see tools/test.py")
    if not (history or (folder / "history.json").exists()):
        faults.append(f"{folder}: no history.json, and no TensorBoard logs under {logs}")
    for key, line in history.items():
        lost = [str(epoch) for epoch, value in line.items() if not math.isfinite(value)]
        if lost:
            faults.append(f"{folder}: `{key}` is not a finite number after epoch {some(lost)}")
    tested = None if results is None else _tested(folder, results, config, data_dir, faults)
    return Run(folder, folder.name, history, tested, tuple(faults))


def short_names(folders: Sequence[Path]) -> list[str]:
    """Name folders, which differ, by the fewest last parts that differ, less what all end with.

    Of long names only what differs stays, in whole words. One folder alone is named by two parts:
    model and run, or variant and seed.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(parts) < 2:
        return [brief("/".join(path[-2:])) for path in parts]
    assert len(set(parts)) == len(parts), "the same folder twice"
    depth = 1
    while len({path[-depth:] for path in parts}) < len(parts):
        depth += 1
    parts = [path[-depth:] for path in parts]
    while all(len(path) > 1 and path[-1] == parts[0][-1] for path in parts):
        parts = [path[:-1] for path in parts]
    names = ["/".join(path) for path in parts]
    is_long = max(map(len, names)) > _LONG
    for _ in range(2):  # from the front, then from the back
        letters = list(zip(*names, strict=False))
        alike = next((i for i, column in enumerate(letters) if len(set(column)) > 1), len(letters))
        cut = 1 + max(names[0].rfind(mark, 0, alike) for mark in "_-/ ")
        if is_long and all(len(name) > cut for name in names):
            names = [name[cut:] for name in names]
        names = [name[::-1] for name in names]
    shown = [brief(name) for name in names]
    shown = [
        name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[1 - _LONGEST // 2 :]}"
        for name in shown
    ]
    return shown if len(set(shown)) == len(names) else names


def _tried(read: Callable[[Path], T], path: Path, faults: list[str]) -> T | None:
    """What `read` makes of a file; None where it is not there or, which becomes a fault, bad."""
    try:
        return read(path) if path.exists() else None
    except UserError as error:
        faults.append(str(error))
        return None


def _read_results(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise UserError(f"{path}: should be an object with `scores`, `config` and `data`")
    scores = content.get("scores")
    if scores is not None:
        if not isinstance(scores, dict):
            raise UserError(f"{path}: `scores` should be an object of numbers")
        content["scores"] = {key: _number(scores, key, str(path)) for key in scores}
    return content


def _read_history(path: Path) -> History:
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(now, dict) for now in content):
        raise UserError(f"{path}: should be a list of objects, one an epoch")
    if not content:
        raise UserError(f"{path}: holds no epoch")
    history: History = {}
    for index, now in enumerate(content):
        where = f"{path}: entry {index}"
        epoch = now.get("epoch")
        if type(epoch) is not int or not 0 <= epoch < 2**31:
            raise UserError(f"{where}: `epoch` should be a whole number from 0 on")
        for key in HISTORY:
            if key in now:
                history.setdefault(key, {})[epoch + 1] = _number(now, key, where)
    return history


def _number(values: dict[str, Any], key: str, where: str) -> float:
    value = values[key]
    if value is None:
        return math.nan  # as `write_json` writes it
    if type(value) not in (int, float):
        raise UserError(f"{where}: `{brief(key)}` should be a number, it is {brief(repr(value))}")
    return math.inf if abs(value) > _LARGEST else float(value)


def _config(results: dict[str, Any], path: Path, faults: list[str]) -> dict[str, Any]:
    """The configuration of a test, unchecked: other versions may have had other keys."""
    try:
        return parse_yaml(str(results.get("config", "")), f"{path}: `config`")
    except UserError as error:
        faults.append(str(error))
        return {}


def _text(config: dict[str, Any], key: str) -> str:
    """A text of the configuration; empty where there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def _read_logs(folder: Path, logs: str, faults: list[str]) -> History:
    """The history that TensorBoard's logs of a run tell."""
    parts = folder.resolve().parts
    places = [folder, *(Path(logs, *parts[-depth:]) for depth in _DEPTHS)]
    place = next((place for place in places if any(place.glob("events.out.tfevents.*"))), None)
    if place is None:
        return {}
    scalars, damages = read_scalars(place)
    faults += damages
    tags = {key: scalars.get(scalar_tag(key)) for key in HISTORY}
    return {key: line for key, line in tags.items() if line}


def _joined(history: History, logs: History, first: float) -> History:
    """The history, and before its `first` epoch that of the logs."""
    joined = {
        key: {epoch: value for epoch, value in logs.get(key, {}).items() if epoch < first}
        | history.get(key, {})
        for key in HISTORY
    }
    return {key: line for key, line in joined.items() if line}


def _tested(
    folder: Path,
    results: dict[str, Any],
    config: dict[str, Any],
    data_dir: str | None,
    faults: list[str],
) -> Scored | None:
    """A test with its predictions and annotation, as far as they are there and fit the scores."""
    data, scores = results["data"], results.get("scores")
    image_set = brief(str(data.get("set")))
    if scores is None:
        faults.append(f"{folder}: the set {image_set} has no annotation to score with")
        return None
    lost = [brief(key) for key, value in scores.items() if not math.isfinite(value)]
    if lost:
        faults.append(f"{folder}: no score of {some(lost)} in results.json: never annotated")
    tested = Scored(
        f"{image_set}, {brief(str(data.get('people')))} people",
        brief(str(data.get("fingerprint"))),
        scores,
    )
    root = Path(_text(config, "DATA_DIR") if data_dir is None else data_dir)
    root /= _text(config, "DATASET.ROOT")
    try:
        path = find_gt(root, image_set) if can_be_path(str(root)) else None
        if path is None:
            raise UserError(
                f"{brief(str(root))}/annot/gt_{image_set}.mat: no such file, see --dataDir"
            )
        gt = load_gt(path)
        predictions = load_predictions(folder / "pred.mat", gt["jnt_missing"].shape[1])
        again = pckh(predictions, gt)
        if any(not _is_same(scores[key], again.get(key, math.nan)) for key in scores):
            raise UserError(
                f"{path}: gives {folder / 'pred.mat'} other scores than results.json: "
                "it is not the annotation of that test"
            )
    except UserError as error:
        faults.append(f"{error}; of the test only the scores in results.json are drawn")
        return tested
    return Scored(tested.people, tested.fingerprint, scores, predictions, gt)


def _is_same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=0, abs_tol=_SAME) or (math.isnan(a) and math.isnan(b))
