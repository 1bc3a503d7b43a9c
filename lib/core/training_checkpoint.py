"""`checkpoint.pth`: the whole state of a training, saved, read and restored."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lib.config import get_cfg
from lib.core.engine import Progress, TrainState
from lib.models import PoseNetwork
from lib.utils.checkpoint import read_checkpoint, save_checkpoint
from lib.utils.distributed import all_gather
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import previous_of
from lib.utils.random_state import random_states, restore_random_states

log = logging.getLogger(__name__)

FORMAT = 2  # of checkpoint.pth; 1 is read too

# Keys that do not affect what is learned.
_FREE_KEYS = ("AUTO_RESUME", "TRAIN.RESUME", "TRAIN.CHECKPOINT", "WORKERS", "PRINT_FREQ", "GPUS")
_FREE_SECTIONS = ("OUTPUT_DIR", "LOG_DIR", "DATA_DIR", "DEBUG", "TRAIN.CHECKPOINT_", "TEST")


def save(
    path: Path,
    state: TrainState,
    progress: Progress,
    identity: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write everything that exact resume needs; keep the previous checkpoint.

    All processes call this, the main one writes. `identity` is what must be equal to continue.
    """
    distributed, ema = state.distributed, state.ema
    generators = all_gather(random_states(distributed.device), distributed)
    bad_images = sorted(set().union(*all_gather(progress.bad_images, distributed)))
    if not distributed.is_main:
        return
    content = {
        "format": FORMAT,
        "model": state.network.state_dict(),
        "ema": None if ema is None else ema.module.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "scaler": state.scaler.state_dict(),
        "progress": asdict(progress) | {"bad_images": bad_images},
        "random": generators,
        "identity": identity,
        "provenance": provenance,
    }
    save_checkpoint(content, path, keep_previous=True)


def candidates(path: Path) -> list[Path]:
    """Return the checkpoints that exist, newest first: `path` and the previous one."""
    return [file for file in (path, previous_of(path)) if file.exists()]


def read(paths: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    """Read the first undamaged checkpoint; a damaged one is logged.

    UserError if all are damaged or are no training checkpoints.
    """
    *newer, last = paths
    for path in newer:
        try:
            return path, _read(path)
        except UserError as error:
            log.warning("%s; using the previous checkpoint", error)
    return last, _read(last)


def changed_keys(path: Path, dump: str) -> list[str]:
    """Return the keys that matter and differ between a checkpoint and a dumped configuration.

    UserError if the file is damaged or is no training checkpoint.
    """
    content = _read(path)
    with as_user_error(f"{path} is not a whole training checkpoint"):
        return _changed_keys(content["provenance"]["config"], dump)


def restore(
    content: dict[str, Any],
    path: Path,
    state: TrainState,
    identity: dict[str, Any],
    provenance: dict[str, Any],
) -> Progress:
    """Restore a training from the content of a checkpoint; return its position.

    UserError if it is of another network, optimizer, seed, metric, or number of steps an epoch.
    """
    with as_user_error(
        f"{path} does not fit this network, or its TRAIN.OPTIMIZER, BACKBONE_LR or FROZEN_STAGES"
    ):
        _check_identity(content["identity"], identity, path)
        _log_differences(content["provenance"], provenance, path)
        _load(state.network, content["model"])
        if state.ema is not None:  # a run without an average starts it here
            _load(state.ema.module, content["ema"] or content["model"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.scheduler.load_state_dict(content["scheduler"])
        if state.scaler.is_enabled() and content["scaler"]:
            state.scaler.load_state_dict(content["scaler"])
        progress = Progress(**content["progress"])
        if min(progress.epoch, progress.step, progress.skipped) < 0:
            raise ValueError("negative progress")
        generators, distributed = content["random"], state.distributed
        if len(generators) == distributed.world_size:
            restore_random_states(generators[distributed.rank], distributed.device)
        else:
            log.warning("%s: other number of processes, drop-path random state not restored", path)
    return progress


def _read(path: Path) -> dict[str, Any]:
    content = read_checkpoint(path)
    version = content.get("format") if isinstance(content, dict) else None
    if version == 1:
        with as_user_error(f"{path} is not a training checkpoint of format 1"):
            return _upgrade(content)
    if version != FORMAT:
        raise UserError(f"{path} is not a training checkpoint of format {FORMAT}")
    return content


def _upgrade(old: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint of format 1 by today's names; `_load` renames weights."""
    progress = dict(old["progress"])
    progress["bad_images"] = progress.pop("bad")
    progress["best"] = None if progress["best"] < 0 else progress["best"]
    for entry in progress["history"]:
        entry["lr"] = entry.pop("rate")
    return old | {
        "progress": progress,
        "scheduler": old["schedule"],
        "identity": {
            "seed": old["seed"],
            "steps_per_epoch": old["steps"],
            "optimizer": old["optimizer kind"],
            "metric": "Mean",
            "skeleton": "mpii",
        },
        "provenance": old["made"],
    }


def _load(network: PoseNetwork, weights: dict[str, Any]) -> None:
    """Load a state dict, by the names of an older version too."""
    if weights.keys() != network.state_dict().keys():
        weights = network.published_names.apply(weights)
    network.load_state_dict(weights)


def _check_identity(then: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    for name, value in now.items():
        if then.get(name) != value:
            raise UserError(
                f"{path} was trained with {name} {then.get(name)}, this run has {value}: continue "
                "with the same SEED, data, batch size, and TRAIN.OPTIMIZER"
            )


def _log_differences(then: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Log what changed since the checkpoint but does not prevent the run from continuing."""
    changed = _changed_keys(then["config"], now["config"])
    if changed:
        log.warning(
            "%s: changed since %s; the learning rate keeps its old base, and follows the new "
            "schedule", ", ".join(changed), path,
        )  # fmt: skip
    for name in ("data", "versions", "git"):
        if then[name] != now[name]:
            log.warning("%s: changed since %s; results may differ", name, path)


def _changed_keys(then: str, now: str) -> list[str]:
    """Keys that matter and differ between two dumps; new keys count if not at their default."""
    old, new, defaults = (
        dict(_flatten(yaml.safe_load(dump))) for dump in (then, now, get_cfg().dump())
    )
    return [
        key
        for key in new
        if old.get(key, defaults.get(key)) != new[key]
        and key not in _FREE_KEYS
        and not key.startswith(_FREE_SECTIONS)
    ]


def _flatten(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
