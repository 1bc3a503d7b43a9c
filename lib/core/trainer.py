"""A whole training: from a configuration to the final weights."""

import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.core import training_checkpoint
from lib.core.engine import NotFiniteError, Progress, StepResult, build_train_state, train_epoch
from lib.core.provenance import provenance
from lib.core.results import trained_files, write_json
from lib.core.tester import Tester
from lib.core.visualize import debug_images
from lib.dataset import build_dataset, build_train_loader, resolve_path, shared_images
from lib.dataset.loader import EpochBatchSampler
from lib.models import PoseNetwork, build_model, pretrained
from lib.utils import drawing
from lib.utils.checkpoint import save_weights
from lib.utils.distributed import Distributed, all_gather, all_reduce_any
from lib.utils.errors import UserError
from lib.utils.event_log import EventLog
from lib.utils.macs import describe_network
from lib.utils.random_state import seed_all
from lib.utils.text import join_names

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pth"  # in the run's folder


class Trainer:
    """Trains, tests every TEST.INTERVAL epochs, and saves what exact resume needs.

    Writes `checkpoint.pth` (and keeps the previous one), `model_best` and `final_state` (weights,
    as .pth and .safetensors) to `folder`, TensorBoard logs to `log_folder`.
    """

    def __init__(
        self, cfg: CfgNode, distributed: Distributed, folder: Path, log_folder: Path
    ) -> None:
        self.cfg, self.distributed, self.folder = cfg, distributed, folder
        seed_all(cfg.SEED)
        checkpoints = self._checkpoints()
        # A wrong key raises before any data is read.
        network = _build_network(cfg, distributed, with_initial_weights=not checkpoints)
        self.dataset = build_dataset(cfg, "train")
        self.provenance = provenance(cfg, self.dataset, cfg.DATASET.TRAIN_SET)
        self.tester = Tester(cfg, distributed)
        self.metric = self.tester.metric
        self._report_data()
        self.loader = build_train_loader(
            cfg, self.dataset, distributed.rank, distributed.world_size
        )
        self.sampler = cast(EpochBatchSampler, self.loader.batch_sampler)
        self.steps = len(self.loader)
        skeleton = self.dataset.skeleton
        self.state = build_train_state(cfg, network, distributed, skeleton, self.steps)
        self.progress = Progress(epoch=cfg.TRAIN.BEGIN_EPOCH)
        self.identity = {
            "seed": cfg.SEED, "steps_per_epoch": self.steps,
            "optimizer": type(self.state.optimizer).__name__,
            "metric": self.metric.primary, "skeleton": skeleton.identity,
        }  # fmt: skip
        seed_all(cfg.SEED + distributed.rank)  # drop path differs from process to process
        self._last_save = time.monotonic()
        if checkpoints:
            self._resume(checkpoints)
        positions = all_gather((self.progress.epoch, self.progress.step), distributed)
        if len(set(positions)) > 1:
            raise UserError(
                f"the processes resume at (epoch, step) {', '.join(map(str, positions))}: "
                f"all of them, on any machine, must see the same {folder}"
            )
        writes = distributed.is_main and self.progress.epoch < cfg.TRAIN.END_EPOCH
        done = self.progress.epoch * self.steps + self.progress.step
        self.writer = EventLog(log_folder, done) if writes else None

    def _report_data(self) -> None:
        """Log if the scores of the training will say little, or if there will be none."""
        if shared := shared_images(self.dataset.annotation, self.tester.dataset.annotation):
            log.info("warning: %s", shared)
        if not self.tester.can_score:
            needs, name = f"{self.metric.name} needs {self.metric.needs}", self.cfg.DATASET.TEST_SET
            log.info("DATASET.TEST_SET %s: no scores and no model_best: %s", name, needs)

    @property
    def tested(self) -> PoseNetwork:
        """The network that is tested and saved: with TRAIN.EMA_DECAY the average."""
        ema = self.state.ema
        return self.state.network if ema is None else cast(PoseNetwork, ema.module)

    def run(self) -> None:
        """Train to the last epoch; Ctrl-C and SIGTERM save the state, then KeyboardInterrupt."""
        progress, cfg = self.progress, self.cfg
        network, size = self.state.network, tuple(cfg.MODEL.IMAGE_SIZE)
        log.info("%s: %s", cfg.MODEL.NAME, describe_network(network, size))
        final, is_finished = "final_state.pth", progress.epoch >= cfg.TRAIN.END_EPOCH
        if is_finished:
            log.info("the training is finished; raise TRAIN.END_EPOCH to continue it")
        else:
            log.info(
                "training on %d people, epochs %d to %d of %d steps",
                len(self.dataset), progress.epoch, cfg.TRAIN.END_EPOCH - 1, self.steps,
            )  # fmt: skip
        with _catch_signals() as stop:
            try:
                while progress.epoch < cfg.TRAIN.END_EPOCH:
                    self.sampler.set_state(progress.epoch, progress.step)
                    numbers = {"steps": self.steps, "print_every": cfg.PRINT_FREQ}
                    for result in train_epoch(self.state, self.loader, progress, **numbers):
                        self._after_step(result, stop)
                    self._end_epoch(stop)
            finally:
                self.loader.close()
                self.tester.loader.close()
        if not is_finished or not (self.folder / final).exists():
            self._save_weights(final)

    def _after_step(self, result: StepResult | NotFiniteError, stop: threading.Event) -> None:
        """Count skipped steps and people, save if due; KeyboardInterrupt if a signal came."""
        if isinstance(result, NotFiniteError):
            self._count_skipped(result)
        else:
            self._count_bad_images(result)
            if self.progress.step == 1 and self.distributed.is_main:
                images = debug_images(self.cfg, result, self.dataset.skeleton)
                for name, image in images.items():
                    path = self.folder / f"train_{self.progress.epoch:03d}_{name}.jpg"
                    drawing.save_image(path, image)
            if self.progress.step % self.cfg.PRINT_FREQ == 0 or self.progress.step == self.steps:
                scalars = {"loss": result.loss, "accuracy": result.accuracy}
                lr = float(self.state.scheduler.get_last_lr()[0])
                self._add_scalars("train", scalars | {"lr": lr})
        stops, is_due = all_reduce_any((stop.is_set(), self._is_due()), self.distributed)
        if stops or is_due:
            self._save_checkpoint()
        if stops:
            raise KeyboardInterrupt

    def _is_due(self) -> bool:
        """Whether CHECKPOINT_STEPS or CHECKPOINT_MINUTES require a checkpoint now."""
        steps, minutes = self.cfg.TRAIN.CHECKPOINT_STEPS, self.cfg.TRAIN.CHECKPOINT_MINUTES
        is_late = minutes > 0 and time.monotonic() - self._last_save >= 60 * minutes
        return is_late or (steps > 0 and self.progress.step % steps == 0)

    def _count_bad_images(self, result: StepResult) -> None:
        """Count the people with an unreadable image; UserError above SKIP_BAD_IMAGES."""
        bad_images, limit = self.progress.bad_images, self.cfg.DATASET.SKIP_BAD_IMAGES
        requested, index = result.batch["requested"], result.batch["index"]
        for person in requested[requested != index].tolist():
            if person in bad_images:
                continue
            bad_images.append(person)
            name = self.dataset.records[person].image
            if len(bad_images) > limit:
                raise UserError(
                    f"{name} is unreadable, after {limit} others: DATASET.SKIP_BAD_IMAGES "
                    f"allows no more than {limit}"
                )
            log.warning(
                "%s is unreadable, replaced by another person (%d of at most %d)",
                name, len(bad_images), limit,
            )  # fmt: skip

    def _count_skipped(self, error: NotFiniteError) -> None:
        """Count a skipped step; UserError with its position above TRAIN.SKIP_NOT_FINITE."""
        progress, limit = self.progress, self.cfg.TRAIN.SKIP_NOT_FINITE
        images = [self.dataset.records[index].image for index in error.samples]
        where = f"epoch {progress.epoch}, step {progress.step}: {error}"
        where += f" for {join_names(images, 8)}" if images else ""
        progress.skipped += 1
        if progress.skipped > limit:
            raise UserError(f"{where}; lower TRAIN.LR, or raise TRAIN.WARMUP_STEPS")
        log.warning("%s; step skipped (%d of at most %d)", where, progress.skipped, limit)

    def _end_epoch(self, stop: threading.Event) -> None:
        """Test, record the scores, and save."""
        progress, metric = self.progress, self.metric
        self._save_checkpoint()  # an error in the test must not lose the epoch
        losses, scores = self._test(stop) if self._is_test_due() else ({}, {})
        lr = self.state.scheduler.get_last_lr()[0]
        entry: dict[str, Any] = {"epoch": progress.epoch, "loss": progress.loss, "lr": lr, **scores}
        progress.history.append(entry)
        progress.end_epoch()
        if self.writer is not None:
            write_json(self.folder / "history.json", progress.history)
            self._add_scalars("valid", losses | scores)
        if scores:
            score = scores[metric.primary]
            if metric.is_better(score, progress.best):
                progress.best = score
                self._save_weights("model_best.pth")
            log.info(
                "epoch %d: %s %.4g, best so far %.4g; validation loss %.6f, accuracy %.3f\n%s",
                progress.epoch - 1, metric.name, score, progress.best or 0, *losses.values(),
                metric.table({self.cfg.MODEL.NAME: scores}),
            )  # fmt: skip
        self._save_checkpoint()
        if all_reduce_any([stop.is_set()], self.distributed)[0]:
            raise KeyboardInterrupt

    def _is_test_due(self) -> bool:
        """Whether this epoch ends with a test: every TEST.INTERVAL epochs, and the last."""
        done = self.progress.epoch + 1
        return done % self.cfg.TEST.INTERVAL == 0 or done == self.cfg.TRAIN.END_EPOCH

    def _test(self, stop: threading.Event) -> tuple[dict[str, float], dict[str, float]]:
        """Return loss and accuracy of the heatmaps, means over people, and the scores."""
        totals = torch.zeros(3, dtype=torch.float64)  # people, and their losses and accuracies

        def observe(heatmaps: Tensor, batch: dict[str, Tensor]) -> None:
            batch = {name: value.to(heatmaps.device) for name, value in batch.items()}
            target, weight = self.state.targets(batch)
            loss = self.state.criterion(heatmaps, target, weight).item()
            result = StepResult(batch, loss, heatmaps, target)
            totals.add_(len(target) * torch.tensor([1, loss, result.accuracy]))

        predictions = self.tester.predict(self.tested, stop.is_set, observe=observe)
        scores = self.tester.score(predictions)
        if scores is None:
            return {}, {}
        people, loss, accuracy = torch.stack(all_gather(totals, self.distributed)).sum(0).tolist()
        return {"loss": loss / people, "accuracy": accuracy / people}, scores

    def _add_scalars(self, group: str, values: Mapping[str, float]) -> None:
        """Write to TensorBoard, by the steps of all epochs."""
        if self.writer is not None:
            done = self.progress.epoch * self.steps + self.progress.step
            for name, value in values.items():
                self.writer.add_scalar(f"{group}/{name}", value, done)

    def _save_weights(self, name: str) -> None:
        if self.distributed.is_main:
            save_weights(self.tested.state_dict(), self.folder / name)

    def _save_checkpoint(self) -> None:
        path = self.folder / CHECKPOINT
        training_checkpoint.save(path, self.state, self.progress, self.identity, self.provenance)
        self._last_save = time.monotonic()

    def _checkpoints(self) -> list[Path]:
        """Return what to continue from, newest first; nothing for a new training.

        AUTO_RESUME has priority over TRAIN.RESUME: a run that started from TRAIN.CHECKPOINT
        continues from the checkpoint in its folder. UserError if another training has that folder.
        """
        newest, train = self.folder / CHECKPOINT, self.cfg.TRAIN
        own = training_checkpoint.candidates(newest)
        paths = [Path(train.CHECKPOINT)] if train.CHECKPOINT else own or [newest]
        paths = own if self.cfg.AUTO_RESUME and own else paths if train.RESUME else []
        files = trained_files(self.folder)
        if files and self.folder.resolve() not in [path.parent.resolve() for path in paths]:
            hint = "AUTO_RESUME true continues it; " if own else ""
            hint += "for a new one choose another OUTPUT_DIR (--modelDir), or rename the YAML file"
            names = join_names([file.name for file in files])
            raise UserError(f"{self.folder} has a training ({names}): {hint}")
        return paths

    def _resume(self, paths: list[Path]) -> None:
        """Continue from the first undamaged checkpoint."""
        path, content = training_checkpoint.read(paths)
        if path != paths[0] and self.distributed.is_main:
            # Otherwise the next checkpoint would keep it as the previous one.
            paths[0].replace(paths[0].with_stem("checkpoint_damaged"))
        self.progress = training_checkpoint.restore(
            content, path, self.state, self.identity, self.provenance
        )
        log.info(
            "resuming from %s: epoch %d, step %d", path, self.progress.epoch, self.progress.step
        )


def _build_network(
    cfg: CfgNode, distributed: Distributed, *, with_initial_weights: bool
) -> PoseNetwork:
    """Build the network, on its device; its initial weights may be missing when a run resumes."""
    network = build_model(cfg)
    if cfg.MODEL.PRETRAINED and with_initial_weights:
        source = cfg.MODEL.PRETRAINED
        if pretrained.is_file(source):
            source = resolve_path(cfg, source)
        layers = cfg.MODEL.EXTRA.get("PRETRAINED_LAYERS", ["*"])
        pretrained.load_initial_weights(network, source, layers)
    if cfg.TRAIN.BATCH_NORM == "sync" and distributed.world_size > 1:
        if distributed.device.type != "cuda":
            raise UserError(
                "TRAIN.BATCH_NORM = 'sync': PyTorch synchronises batch norm on GPUs only; "
                "set it to frozen or own"
            )
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network.to(distributed.device).to(memory_format=torch.channels_last)


@contextmanager
def _catch_signals() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event, so that the loop ends between steps.

    A second Ctrl-C ends at once; a second SIGTERM does not, since torchrun may send two.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            log.info("stopping after this step; Ctrl-C to stop at once")
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
