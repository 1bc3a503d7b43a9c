"""Training and testing the variants of a study; those that are done already are skipped."""

import contextlib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from lib.analysis.study.definition import Job, Study
from lib.core import training_checkpoint
from lib.core.provenance import data_fingerprint
from lib.core.results import hold, set_aside, trained_files
from lib.core.tester import evaluate_checkpoint
from lib.core.trainer import Trainer
from lib.dataset import build_dataset, shared_images
from lib.metrics import build_metric
from lib.utils.distributed import Distributed, all_reduce_any
from lib.utils.errors import UserError
from lib.utils.text import join_names

log = logging.getLogger(__name__)


def run_study(
    study: Study, distributed: Distributed, opts: list[str], only: Collection[str] | None = None
) -> None:
    """Train and test every variant, or `only` some, with every seed.

    Jobs that another command is working on are skipped: two equal commands share the work.
    UserError, before the first training, if a configuration, data or weights are wrong or missing.
    """
    for name in only or ():
        if name not in study.changes:
            known = ", ".join(map(repr, study.changes))
            raise UserError(f"{study.path}: there is no variant {name!r}, only {known}")
    all_jobs = study.jobs(opts)
    jobs = [job for job in all_jobs if only is None or job.variant in only]
    _check(study, jobs)
    for job in jobs:
        title = f"{job.variant}, seed {job.seed}"
        job.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            held = False
            with contextlib.suppress(UserError):
                stack.enter_context(hold(job.folder, distributed))
                held = distributed.is_main
            flags = (held, job.is_ready, job.is_done)
            held, ready, done = all_reduce_any(flags, distributed)
            if not held or not ready:
                log.info("%s: another command trains it, or the weights it needs; skipped", title)
            elif not done:
                log.info(title)
                _run(job, [retest for retest in all_jobs if retest.owner == job], distributed)


def _check(study: Study, jobs: Sequence[Job]) -> None:
    """UserError if a job lacks data, or weights that no earlier one trains, or cannot be scored."""
    cfg = jobs[0].cfg
    if not build_metric(cfg).can_score(build_dataset(cfg, "test")):
        raise UserError(f"{study.path}: DATASET.TEST_SET {cfg.DATASET.TEST_SET} has no annotation")
    for cfg in {str(job.cfg.DATASET): job.cfg for job in jobs if not job.is_done}.values():
        train, test = build_dataset(cfg, "train"), build_dataset(cfg, "test")
        data_fingerprint(train, cfg.DATASET.SKIP_BAD_IMAGES)  # images exist
        data_fingerprint(test)
        if shared := shared_images(train.annotation, test.annotation):
            raise UserError(f"{study.path}: {shared}")
    earlier: set[Path] = set()
    for job in jobs:
        if job.start is not None and not job.is_ready and job.start.parent not in earlier:
            needs = f"{job.variant!r}, seed {job.seed}, needs {job.start}, which is not trained"
            raise UserError(f"{study.path}: {needs}: train it, or list its variant before this one")
        earlier.add(job.folder)


def _run(job: Job, retests: Sequence[Job], distributed: Distributed) -> None:
    """Train a variant, unless it is a retest, and test it; set aside what it replaces."""
    if distributed.is_main:
        for retest in retests:
            set_aside(retest.folder)
        set_aside(job.folder, keep=_current_files(job))
    all_reduce_any([True], distributed)  # other processes read the folder only after that
    if job.owner is None:
        logs = Path(job.cfg.LOG_DIR) / job.folder.relative_to(job.cfg.OUTPUT_DIR)
        Trainer(job.cfg, distributed, job.folder, logs).run()
    weights = (job.owner or job).folder / "final_state.pth"
    evaluate_checkpoint(job.cfg, distributed, job.folder, weights)


def _current_files(job: Job) -> list[Path]:
    """Return the files of a training to continue; none if its checkpoint has other settings."""
    for path in training_checkpoint.candidates(job.folder / "checkpoint.pth"):
        with contextlib.suppress(UserError):  # the trainer reports a damaged checkpoint
            if changed := training_checkpoint.changed_keys(path, job.cfg.dump()):
                log.info("config changed (%s), retraining", join_names(changed))
                return []
    return trained_files(job.folder)
