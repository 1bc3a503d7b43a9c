"""A study: variants of one configuration, trained and tested with the same seeds and budget."""

import contextlib
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from yacs.config import CfgNode

from lib.config import load_cfg
from lib.config.load import read_yaml
from lib.core import state
from lib.core.tester import score_checkpoint
from lib.core.trainer import Trainer
from lib.dataset import rooted
from lib.dataset.mpii import find_gt
from lib.utils.distributed import World, any_of
from lib.utils.errors import UserError
from lib.utils.text import some

log = logging.getLogger(__name__)

_KEYS = {"CFG", "SEEDS", "BASELINE", "VARIANTS", "RETESTS"}


@dataclass(frozen=True)
class Variant:
    """One row of a study: what it changes, and whose weights it tests if not its own."""

    name: str
    changes: dict[str, Any]
    weights_of: str | None = None


@dataclass(frozen=True)
class Study:
    """What to train and test; `cfg` is the configuration that all variants build upon."""

    path: Path
    cfg: Path
    seeds: tuple[int, ...]
    baseline: str
    variants: dict[str, Variant]

    def configuration(self, variant: Variant, seed: int, opts: list[str]) -> CfgNode:
        """Return the configuration of a variant, `KEY VALUE ...` of the command line on top."""
        changes = [
            word.replace("{seed}", str(seed)) if isinstance(word, str) else word
            for change in variant.changes.items()
            for word in change
        ]
        return load_cfg(self.cfg, [*changes, "SEED", seed, "AUTO_RESUME", True, *opts])

    def retests_of(self, name: str) -> list[Variant]:
        """Those that test the weights of a variant."""
        return [variant for variant in self.variants.values() if variant.weights_of == name]

    def check_name(self, name: str) -> None:
        """UserError where there is no such variant."""
        if name not in self.variants:
            known = ", ".join(repr(known) for known in self.variants)
            raise UserError(f"{self.path}: there is no variant {name!r}, only {known}")

    def folder(self, cfg: CfgNode, variant: Variant | None = None, seed: int = 0) -> Path:
        """Where the study's results lie, or those of a variant and seed."""
        folder = Path(cfg.OUTPUT_DIR) / cfg.DATASET.DATASET / cfg.MODEL.NAME / self.path.stem
        if variant is None:
            return folder
        return folder / _folder_name(variant) / f"seed_{seed}"


def load_study(path: str | Path) -> Study:
    """Read a study file; UserError, one line, names what is wrong with it.

    `CFG`, the configuration, is relative to the file. `VARIANTS` maps names to `{KEY: value}`, in
    whose texts `{seed}` stands for the seed, so that each can start from weights of its own;
    `RETESTS` too, with `OF` a variant whose weights are tested otherwise. `BASELINE` is the variant
    that all are compared with, each seed of `SEEDS` with its own.
    """
    path = Path(path)
    content = read_yaml(path)
    if not {"CFG", "VARIANTS"} <= content.keys() <= _KEYS:
        raise UserError(f"{path}: a study holds CFG, VARIANTS, and of {', '.join(sorted(_KEYS))}")
    variants = {
        variant.name: variant
        for section in ("VARIANTS", "RETESTS")
        for variant in _variants(content.get(section) or {}, f"{path}: {section}")
    }
    folders = [_folder_name(variant) for variant in variants.values()]
    if len(set(folders)) < len(folders):
        raise UserError(f"{path}: two variants would share a folder; name them less alike")
    trained = [name for name, variant in variants.items() if variant.weights_of is None]
    seeds = content.get("SEEDS", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{path}: SEEDS should be a list of whole numbers, it is {seeds!r}")
    baseline = content.get("BASELINE", next(iter(trained), None))
    for name in (baseline, *(v.weights_of for v in variants.values() if v.weights_of)):
        if name not in trained:
            raise UserError(f"{path}: there is no variant {name!r}, only {', '.join(trained)}")
    return Study(path, path.parent / str(content["CFG"]), tuple(seeds), baseline, variants)


def _folder_name(variant: Variant) -> str:
    """Letters, digits, _ and - alone, so that it stays where it is made."""
    return re.sub(r"[^\w-]+", "_", variant.name)[:100]


def _variants(section: Any, where: str) -> Iterator[Variant]:
    if not isinstance(section, Mapping):
        raise UserError(f"{where} should map names to changes")
    for name, changes in section.items():
        if not isinstance(changes, Mapping):
            raise UserError(f"{where}: {name} should hold KEY: value, or {{}}")
        changes = dict(changes)
        yield Variant(str(name), {k: v for k, v in changes.items() if k != "OF"}, changes.get("OF"))


def run_study(
    study: Study, world: World, opts: list[str], only: Collection[str] | None = None
) -> None:
    """Train and test every variant, or `only` some, with every seed; what is done already stays.

    Seeds come one after the other, so that after each all variants can be compared. What another
    command is at work on is left to it: the same command, started twice, shares the work.
    UserError, before the first training, where a name is unknown, a configuration is wrong, the
    people to test on have no annotation, or weights to start from or to test are not there.
    """
    plan = {
        (variant.name, seed): study.configuration(variant, seed, opts)
        for seed in study.seeds
        for variant in study.variants.values()
    }
    if only is not None:
        for name in only:
            study.check_name(name)
        plan = {(name, seed): cfg for (name, seed), cfg in plan.items() if name in only}
    _check(study, plan, opts)
    count = -1
    while plan and len(plan) != count:
        count = len(plan)
        for key in list(plan):
            if _run(study, *key, plan, world):
                del plan[key]
    if plan:
        left = [f"{name}, seed {seed}" for name, seed in plan]
        log.info("left to the commands that are at it: %s", some(left))


def _check(study: Study, plan: Mapping[tuple[str, int], CfgNode], opts: list[str]) -> None:
    gt_path(study, next(iter(plan.values())))
    for (name, seed), cfg in plan.items():
        start, owner = rooted(cfg, cfg.MODEL.PRETRAINED), study.variants[name].weights_of
        made_here = study.folder(cfg) in start.parents  # by a variant before this one
        if owner is None and cfg.MODEL.PRETRAINED and not (start.is_file() or made_here):
            raise UserError(
                f"{study.path}: {name!r}, seed {seed}, starts from {start}, which is not there: "
                "make it first"
            )
        if owner is not None and (owner, seed) not in plan:
            trained = study.configuration(study.variants[owner], seed, opts)
            if not is_done(study.folder(trained, study.variants[owner], seed), trained):
                raise UserError(
                    f"{study.path}: {name!r} tests the weights of {owner!r}, seed {seed}, which is "
                    "not trained yet: choose it too"
                )


def _run(
    study: Study, name: str, seed: int, plan: Mapping[tuple[str, int], CfgNode], world: World
) -> bool:
    """Train and test a variant; whether it is done. It is not where another command is at it."""
    cfg, variant = plan[name, seed], study.variants[name]
    folder = study.folder(cfg, variant, seed)
    trained = study.folder(cfg, study.variants[variant.weights_of or name], seed)
    waits = (variant.weights_of, seed) in plan  # for weights that are still to be trained
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")  # the system opens it when its holder dies, however
    ours = world.is_first and not waits and _take(lock)
    try:
        done, ours = any_of([world.is_first and is_done(folder, cfg), ours], world)
        if done or not ours:
            return done
        log.info("%s, seed %d", name, seed)
        if variant.weights_of is None:
            if world.is_first:
                _forget_others(folder, cfg)
                for retest in study.retests_of(name):  # they are of the weights of before
                    (study.folder(cfg, retest, seed) / "results.json").unlink(missing_ok=True)
            any_of([True], world)  # no other process looks before that is done
            logs = Path(cfg.LOG_DIR) / folder.relative_to(cfg.OUTPUT_DIR)
            Trainer(cfg, world, folder, logs).run()
        score_checkpoint(cfg, world, folder, trained / "final_state.pth")
    finally:
        lock.release()
    return True


def _forget_others(folder: Path, cfg: CfgNode) -> None:
    """Delete checkpoints of a variant that had the same name: to go on from them would mix two."""
    for path in state.candidates(folder / "checkpoint.pth"):
        with contextlib.suppress(UserError):  # a damaged one: the training tells what it does
            changed = state.changed_keys(path, cfg.dump())
            if changed:
                log.info("begun anew, since these are others now: %s", some(changed))
                path.unlink()


def _take(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def gt_path(study: Study, cfg: CfgNode) -> Path:
    """What the people are scored with whom a configuration tests on; UserError without."""
    path = find_gt(rooted(cfg, cfg.DATASET.ROOT), cfg.DATASET.TEST_SET)
    if path is None:
        raise UserError(
            f"{study.path}: {rooted(cfg, cfg.DATASET.ROOT)} has no annot/gt_"
            f"{cfg.DATASET.TEST_SET}.mat, with which variants are scored"
        )
    return path


def is_done(folder: Path, cfg: CfgNode) -> bool:
    """Whether a folder holds the test of just this configuration."""
    try:
        return json.loads((folder / "results.json").read_text())["config"] == cfg.dump()
    except (OSError, ValueError, KeyError):
        return False
