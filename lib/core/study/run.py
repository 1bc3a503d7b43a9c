"""Training and testing what a study asks for, and no more than is not done yet."""

import contextlib
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from yacs.config import CfgNode

from lib.core import state
from lib.core.study.definition import Study
from lib.core.tester import score_checkpoint
from lib.core.trainer import Trainer
from lib.dataset import rooted
from lib.dataset.mpii import find_gt
from lib.utils.distributed import World, any_of
from lib.utils.errors import UserError
from lib.utils.text import some

log = logging.getLogger(__name__)


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
        owner = study.variants[name].weights_of
        made_here = study.folder(cfg) in rooted(cfg, cfg.MODEL.PRETRAINED).parents
        if owner is None and _lacks_start(cfg) and not made_here:
            raise UserError(
                f"{study.path}: {name!r}, seed {seed}, starts from "
                f"{rooted(cfg, cfg.MODEL.PRETRAINED)}, which is not there: make it first"
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
    # For weights that another variant is still to leave.
    waits = (variant.weights_of, seed) in plan or _lacks_start(cfg)
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


def _lacks_start(cfg: CfgNode) -> bool:
    start = cfg.MODEL.PRETRAINED
    return bool(start) and not rooted(cfg, start).is_file()


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
