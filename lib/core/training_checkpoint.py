"""`checkpoint.pth`: the whole state of a training, saved, read and restored."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lib.config import get_cfg
from lib.config.load import parse_yaml
from lib.core.engine import Progress, TrainState
from lib.utils.checkpoint import by_names, read_checkpoint, save_checkpoint
from lib.utils.distributed import all_gather
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import previous_of
from lib.utils.random_state import random_states, restore_random_states
from lib.utils.text import shorten

log = logging.getLogger(__name__)

FORMAT = 2  # of checkpoint.pth; 1 is read too
Entries = dict[str, Any]  # of checkpoint.pth, or of one of its parts

# Keys that do not affect what is learned.
_FREE_KEYS = ("AUTO_RESUME", "TRAIN.RESUME", "TRAIN.CHECKPOINT", "WORKERS", "PRINT_FREQ", "GPUS")
_FREE_SECTIONS = ("OUTPUT_DIR", "LOG_DIR", "DATA_DIR", "DEBUG", "TRAIN.CHECKPOINT_", "TEST")


def save(
    path: Path, state: TrainState, progress: Progress, identity: Entries, provenance: Entries
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


def read(paths: Sequence[Path]) -> tuple[Path, Entries]:
    """Read the first undamaged training checkpoint, log the damaged; UserError if all are."""
    *newer, last = paths
    for path in newer:
        try:
            return path, _read(path)
        except UserError as error:
            log.warning("%s; using the previous checkpoint", error)
    return last, _read(last)


def changed_keys(path: Path, dump: str) -> list[str]:
    """Return the keys that matter and differ from a dumped configuration; UserError if damaged."""
    content = _read(path)
    with as_user_error(f"{path} is not a whole training checkpoint"):
        return _changed_keys(content["provenance"]["config"], dump, path)


def restore(
    content: Entries, path: Path, state: TrainState, identity: Entries, provenance: Entries
) -> Progress:
    """Restore a training from the content of a checkpoint; return its position.

    UserError, before anything is used, if it is of another training or `save` cannot have made it.
    """
    network, ema, distributed = state.network, state.ema, state.distributed
    with as_user_error(
        f"{path} does not fit this network, or its TRAIN.OPTIMIZER, BACKBONE_LR or FROZEN_STAGES"
    ):
        _check("", content, {"identity": identity, "optimizer": {"state": {}}, "progress": {}})
        _check_identity(content["identity"], identity, path)
        content = content | {"model": by_names(network, content["model"])}
        if ema is not None:  # a run without an average starts it here
            source = "model" if content["ema"] is None else "ema"
            content["ema"] = by_names(ema.module, content[source])
        _check_content(content, state)
        _log_differences(content["provenance"], provenance, path)
        if len(content["random"]) == distributed.world_size:
            restore_random_states(content["random"][distributed.rank], distributed.device)
        else:
            log.warning("%s: other number of processes, drop-path random state not restored", path)
        network.load_state_dict(content["model"])
        if ema is not None:
            ema.module.load_state_dict(content["ema"])
        groups = state.optimizer.state_dict()["param_groups"]  # with the settings of this run
        state.optimizer.load_state_dict(content["optimizer"] | {"param_groups": groups})
        step = content["scheduler"]["last_epoch"]
        state.scheduler.last_epoch, state.scheduler._step_count = step - 1, step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects a step of the optimizer first
            state.scheduler.step()
        if state.scaler.is_enabled() and content["scaler"]:
            state.scaler.load_state_dict(content["scaler"])
        return Progress(**content["progress"])


def _check_content(content: Entries, state: TrainState) -> None:
    """Raise an error, which names the entry, unless a run with this state could have saved it."""
    progress, optimizer = content["progress"], content["optimizer"]
    weights = [weight for group in state.optimizer.param_groups for weight in group["params"]]
    groups = state.optimizer.state_dict()["param_groups"]
    is_sgd = "momentum" in state.optimizer.defaults
    settings = ("params", "lr", "momentum" if is_sgd else "betas")
    names = ("momentum_buffer",) if is_sgd else ("exp_avg", "exp_avg_sq")
    scalars = {} if is_sgd else {"step": torch.ones(())}
    own: Entries = {
        "model": state.network.state_dict(),
        "ema": state.ema and state.ema.module.state_dict(),
        "optimizer": {
            "state": {i: dict.fromkeys(names, weights[i]) | scalars for i in optimizer["state"]},
            "param_groups": [{name: group[name] for name in settings} for group in groups],
        },
        "scheduler": {"last_epoch": 0, "base_lrs": [0.0, ...], "_last_lr": [0.0, ...]},
        "scaler": state.scaler.state_dict() if content["scaler"] else {},
        "progress": asdict(Progress(best=None if progress["best"] is None else 0.0))
        | {"bad_images": [0, ...], "history": [{"epoch": 0, "loss": 0.0, "lr": 0.0}, ...]},
        "provenance": {"config": "", "versions": {}, "data": {}},
    }
    _check("", content, own)
    generators = content["random"][: state.distributed.world_size]
    sample = {"torch": torch.get_rng_state(), "numpy": ("", None, 0, 0, 0.0), "python": None}
    _check("random", generators, [sample, ...])
    history, epoch, step = progress["history"], progress["epoch"], progress["step"]
    steps = content["identity"]["steps_per_epoch"]
    stored = [group["params"] for group in optimizer["param_groups"]]
    rules = {
        "optimizer.param_groups": stored == [group["params"] for group in groups],
        "optimizer.state": optimizer["state"] or not history or is_sgd,
        "scheduler": content["scheduler"]["last_epoch"] == len(history) * steps + step,
        "scaler": content["scaler"].get("scale", 1) > 0,
        "provenance.config": len(content["provenance"]["config"]) < 50_000,  # PyYAML is slow
        "progress.step": step <= steps,
        "progress.history": [e["epoch"] for e in history] == [*range(epoch - len(history), epoch)]
        and all(type(score) in (int, float) for entry in history for score in entry.values()),
        "random": generators and all(states["numpy"][2] <= 624 for states in generators),
    }
    for name, holds in rules.items():
        if not holds:
            raise ValueError(f"{name} has an impossible value")


def _check(name: str, value: Any, own: Any) -> None:
    """Raise ValueError, which names the entry, unless a value is of the same kind as our own.

    Our own may be None, for anything, and [entry, ...], for a list of any length.
    """
    fits, parts = type(value) is type(own) or own is None, dict[Any, Any]()
    if isinstance(own, torch.Tensor):
        form = own.shape, own.dtype
        fits = isinstance(value, torch.Tensor) and (value.shape, value.dtype) == form
        # Fused optimizers end the process if two numbers share their memory.
        fits = fits and (value.is_contiguous() or value.stride() == own.stride())
        is_signed = not name.endswith((".step", ".exp_avg_sq"))
        fits = fits and bool(value.isfinite().all() and (is_signed or (value >= 0).all()))
    elif isinstance(own, dict):
        fits, parts = isinstance(value, dict), own
    elif isinstance(own, list | tuple) and fits:
        is_sample, value = own[-1] is ..., dict(enumerate(value))
        parts = dict.fromkeys(value, own[0]) if is_sample else dict(enumerate(own))
        fits = len(value) == len(parts)
    elif isinstance(own, int | float) and fits:
        fits = math.isfinite(value) and (isinstance(own, float) or 0 <= value < 2**63)
    if not fits:
        raise ValueError(f"{name} has another type, shape or range")
    for key, part in parts.items():
        _check(f"{name}.{key}".strip("."), value.get(key), part)


def _read(path: Path) -> Entries:
    content = read_checkpoint(path)
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is not int or version not in (1, FORMAT):
        raise UserError(f"{path} is not a training checkpoint of format {FORMAT}")
    with as_user_error(f"{path} is not a training checkpoint of format 1"):
        return content if version == FORMAT else _upgrade(content)


def _upgrade(old: Entries) -> Entries:
    """Return the content of a checkpoint of format 1 by today's names, except of the weights."""
    progress = dict(old["progress"])
    progress["bad_images"] = progress.pop("bad")
    progress["best"] = None if progress["best"] < 0 else progress["best"]
    for entry in progress["history"]:
        entry["lr"] = entry.pop("rate")
    return old | {
        "progress": progress, "scheduler": old["schedule"], "provenance": old["made"],
        "identity": {
            "seed": old["seed"], "steps_per_epoch": old["steps"],
            "optimizer": old["optimizer kind"], "metric": "Mean", "skeleton": "mpii",
        },
    }  # fmt: skip


def _check_identity(then: Entries, now: Entries, path: Path) -> None:
    for name, value in now.items():
        if then[name] != value:
            raise UserError(
                f"{path} was trained with {name} {shorten(str(then[name]))}, this run has "
                f"{shorten(str(value))}: continue with the same SEED, data, batch size, and "
                "TRAIN.OPTIMIZER"
            )


def _log_differences(then: Entries, now: Entries, path: Path) -> None:
    """Log what changed since the checkpoint but does not prevent the run from continuing."""
    changed = _changed_keys(then["config"], now["config"], path)
    if changed:
        log.warning("%s: changed since %s; the new values hold", ", ".join(changed), path)
    for name in ("data", "versions", "git"):
        if then[name] != now[name]:
            log.warning("%s: changed since %s; results may differ", name, path)


def _changed_keys(then: str, now: str, path: Path) -> list[str]:
    """Keys that matter and differ between two dumps; new keys count if not at their default."""
    old, new, defaults = (
        dict(_flatten(parse_yaml(dump, f"{path}: its configuration")))
        for dump in (then, now, get_cfg().dump())
    )
    return [
        key
        for key in new
        if old.get(key, defaults.get(key)) != new[key]
        and not key.startswith((*_FREE_KEYS, *_FREE_SECTIONS))
    ]


def _flatten(section: Entries, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
