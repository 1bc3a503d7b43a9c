"""The whole state of a training, as `checkpoint.pth` holds it: saved, found again, restored."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from lib.core.engine import Progress, Training
from lib.utils import checkpoint
from lib.utils.distributed import gather
from lib.utils.errors import UserError
from lib.utils.files import previous_of
from lib.utils.random import random_states, restore_random_states

log = logging.getLogger(__name__)

# Keys that change nothing that is learned.
_FREE = ("AUTO_RESUME", "TRAIN.RESUME", "TRAIN.CHECKPOINT", "WORKERS", "PRINT_FREQ", "GPUS")
_FREE_SECTIONS = ("OUTPUT_DIR", "LOG_DIR", "DATA_DIR", "DEBUG", "TRAIN.CHECKPOINT_", "TEST")

_MISFITS = (
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    RuntimeError,
    yaml.YAMLError,
)


def save(
    path: Path,
    network: nn.Module,
    training: Training,
    progress: Progress,
    *,
    steps: int,
    seed: int,
    made: dict[str, Any],
) -> None:
    """Write everything that it takes to go on exactly here; the checkpoint before is kept.

    All processes call this, the first one writes. `steps` are those of an epoch, `made` is the
    run's `provenance`.
    """
    world, ema = training.world, training.ema
    generators = gather(random_states(world.device), world)
    bad = sorted({index for part in gather(progress.bad, world) for index in part})
    if not world.is_first:
        return
    content = {
        "format": checkpoint.FORMAT,
        "model": network.state_dict(),
        "ema": None if ema is None else ema.module.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "scaler": training.scaler.state_dict(),
        "progress": asdict(progress) | {"bad": bad},
        "random": generators,
        "steps": steps,
        "seed": seed,
        "optimizer kind": type(training.optimizer).__name__,
        "made": made,
    }
    checkpoint.save_atomically(content, path, keeps_previous=True)


def candidates(path: Path) -> list[Path]:
    """The checkpoints that exist, newest first: `path` and the one before it."""
    return [file for file in (path, previous_of(path)) if file.exists()]


def read(paths: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    """Read the first checkpoint that is whole; a damaged one is named in the log.

    UserError where none is whole, or the one that is is no training checkpoint.
    """
    *fallback, last = paths
    for path in fallback:
        try:
            return path, _read(path)
        except UserError as error:
            log.warning("%s; trying the one before", error)
    return last, _read(last)


def changed_keys(path: Path, dump: str) -> list[str]:
    """Keys that matter and were others for a checkpoint than in a dump of a configuration.

    UserError where the file is no whole training checkpoint.
    """
    return _changed_keys(_read(path)["made"]["config"], dump)


def _read(path: Path) -> dict[str, Any]:
    content = checkpoint.read_checkpoint(path, sealed=True)
    if not isinstance(content, dict) or content.get("format") != checkpoint.FORMAT:
        raise UserError(f"{path} is not a training checkpoint of format {checkpoint.FORMAT}")
    return content


def restore(
    content: dict[str, Any],
    path: Path,
    network: nn.Module,
    training: Training,
    *,
    steps: int,
    seed: int,
    made: dict[str, Any],
) -> Progress:
    """Bring a training to where a checkpoint stands; return how far that is.

    UserError where it is of another network, optimizer, seed, or number of steps an epoch.
    """
    kind = type(training.optimizer).__name__
    for name, here in {"seed": seed, "steps": steps, "optimizer kind": kind}.items():
        if content.get(name) != here:
            raise UserError(
                f"{path} was trained with {name} {content.get(name)}, here it is {here}: go on "
                "with the same SEED, people, people a step, and TRAIN.OPTIMIZER"
            )
    world, ema = training.world, training.ema
    try:
        _compare(content["made"], made, path)
        network.load_state_dict(content["model"])  # counters of batch norm too
        if ema is not None:
            # a run that had none begins its average here
            ema.module.load_state_dict(content["ema"] or content["model"])
        training.optimizer.load_state_dict(content["optimizer"])
        training.schedule.load_state_dict(content["schedule"])
        if training.scaler.is_enabled() and content["scaler"]:
            training.scaler.load_state_dict(content["scaler"])
        progress = Progress(**content["progress"])
        if min(progress.epoch, progress.step, progress.skipped) < 0:
            raise ValueError("its progress is below 0")
        generators = content["random"]
        if len(generators) == world.size:
            restore_random_states(generators[world.rank], world.device)
        else:
            log.warning("%s is of %d processes: what layers drop differs", path, len(generators))
    except _MISFITS as error:
        raise UserError(f"{path} does not fit this network and TRAIN.OPTIMIZER: {error}") from None
    return progress


def _compare(then: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Say what is not as it was; it need not keep a run from going on."""
    changed = _changed_keys(then["config"], now["config"])
    if changed:
        log.warning(
            "%s: not as they were for %s; the rate keeps its old base, and follows the schedule "
            "given here", ", ".join(changed), path,
        )  # fmt: skip
    names = {
        "data": "annotation or pictures are not the ones of %s",
        "versions": "packages have other versions than for %s: bits may differ",
        "git": "the code is not the one of %s",
    }
    for name, text in names.items():
        if then[name] != now[name]:
            log.warning(text, path)


def _changed_keys(then: str, now: str) -> list[str]:
    """Keys that matter and differ between two dumps of a configuration."""
    old, new = (dict(_flat(yaml.safe_load(dump))) for dump in (then, now))
    return [
        key
        for key in new
        if old.get(key) != new[key] and key not in _FREE and not key.startswith(_FREE_SECTIONS)
    ]


def _flat(section: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value
