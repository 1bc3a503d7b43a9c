"""A whole training: from a configuration to the weights it ends with."""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from timm.utils import ModelEmaV3
from torch import nn
from yacs.config import CfgNode

from lib.core import state
from lib.core.engine import NotFiniteError, Progress, Step, Training, train_epoch
from lib.core.loss import build_loss
from lib.core.optimizer import build_optimizer, build_schedule
from lib.core.pictures import debug_pictures
from lib.core.provenance import provenance
from lib.core.results import scalar_tag, write_json
from lib.core.tester import Tester
from lib.dataset import build_dataset, build_train_loader, rooted
from lib.dataset.skeleton import Skeleton
from lib.models import build_model
from lib.utils import checkpoint, drawing
from lib.utils.distributed import World, any_of, gather, spread
from lib.utils.errors import UserError
from lib.utils.event_files import EventLog
from lib.utils.random import seed_all
from lib.utils.text import some

log = logging.getLogger(__name__)


class Trainer:
    """Trains, tests after every epoch, and keeps what it takes to go on later.

    `folder` gets `checkpoint.pth` (everything, and the one before it), `model_best` and
    `final_state` (weights, as .pth and .safetensors), `log_folder` the TensorBoard logs.
    """

    def __init__(self, cfg: CfgNode, world: World, folder: Path, log_folder: Path) -> None:
        self.cfg, self.world, self.folder = cfg, world, folder
        seed_all(cfg.SEED)
        self.dataset = build_dataset(cfg, "train")
        self.made = provenance(cfg, self.dataset, cfg.DATASET.TRAIN_SET)
        self.tester = Tester(cfg, world)
        self.loader = build_train_loader(cfg, self.dataset, world.rank, world.size)
        self.network = _build_network(cfg, world)
        self.training = build_training(
            cfg, self.network, world, self.dataset.skeleton, len(self.loader)
        )
        self.progress = Progress(epoch=cfg.TRAIN.BEGIN_EPOCH)
        seed_all(cfg.SEED + world.rank)  # what a layer drops differs from process to process
        self._saved = time.monotonic()
        self.writer = EventLog(log_folder) if world.is_first else None
        self._resume()
        self._expect_together()

    @property
    def tested(self) -> nn.Module:
        """The network that is tested and kept: the averaged one, where there is one."""
        ema = self.training.ema
        return self.network if ema is None else ema.module

    def run(self) -> None:
        """Train to the last epoch; after Ctrl-C or SIGTERM save the state, KeyboardInterrupt."""
        progress, steps = self.progress, len(self.loader)
        log.info(
            "training on %d people, epochs %d to %d of %d steps",
            len(self.dataset), progress.epoch, self.cfg.TRAIN.END_EPOCH - 1, steps,
        )  # fmt: skip
        with _signals() as stopping:

            def after_step(step: Step | None) -> None:
                if step is not None:
                    self._note_bad_images(step)
                if step is not None and progress.step == 1 and self.writer is not None:
                    self._draw(step)
                stops, due = any_of((stopping.is_set(), self._is_due()), self.world)
                if stops or due:
                    self._save_checkpoint()
                if stops:
                    raise KeyboardInterrupt

            try:
                while progress.epoch < self.cfg.TRAIN.END_EPOCH:
                    self.loader.batch_sampler.set_state(progress.epoch, progress.step)
                    train_epoch(
                        self.training,
                        self.loader,
                        progress,
                        steps=steps,
                        print_every=self.cfg.PRINT_FREQ,
                        on_failure=self._skip,
                        after_step=after_step,
                    )
                    self._end_epoch(stopping)
            finally:
                self.loader.close()
                self.tester.loader.close()
        self._save_weights("final_state.pth")

    def _is_due(self) -> bool:
        """Whether CHECKPOINT_STEPS or CHECKPOINT_MINUTES ask for a checkpoint now."""
        steps, minutes = self.cfg.TRAIN.CHECKPOINT_STEPS, self.cfg.TRAIN.CHECKPOINT_MINUTES
        late = minutes > 0 and time.monotonic() - self._saved >= 60 * minutes
        return late or (steps > 0 and self.progress.step % steps == 0)

    def _draw(self, step: Step) -> None:
        """Show what the epoch's first batch looks like, where DEBUG asks for it."""
        pictures = debug_pictures(self.cfg, step, self.dataset.skeleton)
        for name, picture in pictures.items():
            path = self.folder / f"train_{self.progress.epoch:03d}_{name}.jpg"
            drawing.save_image(path, picture)
            self.writer.add_image(f"train/{name}", picture, self.progress.epoch)

    def _note_bad_images(self, step: Step) -> None:
        """Count the people whose image was unreadable; UserError where they are too many."""
        progress, most = self.progress, self.cfg.DATASET.SKIP_BAD_IMAGES
        asked, taken = step.batch["asked"], step.batch["index"]
        for index in asked[asked != taken].tolist():
            if index in progress.bad:
                continue
            progress.bad.append(index)
            name = self.dataset.records[index].image
            if len(progress.bad) > most:
                raise UserError(
                    f"{name} is unreadable, and so are {most} others, as many as "
                    "DATASET.SKIP_BAD_IMAGES lets pass"
                )
            log.warning(
                "%s is unreadable, another person takes its place (%d of at most %d)",
                name, len(progress.bad), most,
            )  # fmt: skip

    def _skip(self, error: NotFiniteError) -> None:
        """Leave a step out, where TRAIN.SKIP_NOT_FINITE lets it pass; else say where it was."""
        progress, most = self.progress, self.cfg.TRAIN.SKIP_NOT_FINITE
        names = some([self.dataset.records[index].image for index in error.samples], most=8)
        where = f"epoch {progress.epoch}, step {progress.step + 1}: {error}"
        where += f" on {names}" if names else ""
        progress.skipped += 1
        if progress.skipped > most:
            raise UserError(f"{where}; lower TRAIN.LR, or raise TRAIN.WARMUP_STEPS") from None
        log.warning("%s; step left out (%d of at most %d)", where, progress.skipped, most)

    def _end_epoch(self, stopping: threading.Event) -> None:
        """Test, note the scores, and save."""
        progress = self.progress
        self._save_checkpoint()  # whatever befalls the test, the epoch is learned
        predictions = self.tester.predict(self.tested, stopping.is_set)
        scores = self.tester.score(predictions) or {}
        rate = self.training.schedule.get_last_lr()[0]
        now = {"epoch": progress.epoch, "loss": progress.loss, "rate": rate, **scores}
        progress.history.append(now)
        progress.end_epoch()
        if self.writer is not None:
            write_json(self.folder / "history.json", progress.history)
            for name in now.keys() - {"epoch"}:
                self.writer.add_scalar(scalar_tag(name), now[name], progress.epoch)
        if scores:
            log.info("epoch %d: PCKh@0.5 %.2f", progress.epoch - 1, scores["Mean"])
            if scores["Mean"] > progress.best:
                progress.best = scores["Mean"]
                self._save_weights("model_best.pth")
        self._save_checkpoint()
        if any_of([stopping.is_set()], self.world)[0]:
            raise KeyboardInterrupt

    def _save_weights(self, name: str) -> None:
        if self.world.is_first:
            checkpoint.save_weights(self.tested.state_dict(), self.folder / name)

    def _save_checkpoint(self) -> None:
        state.save(
            self.folder / "checkpoint.pth",
            self.network,
            self.training,
            self.progress,
            steps=len(self.loader),
            seed=self.cfg.SEED,
            made=self.made,
        )
        self._saved = time.monotonic()

    def _resume(self) -> None:
        """Go on from a checkpoint, where the configuration asks for it and there is one.

        AUTO_RESUME comes first: a run that began at TRAIN.CHECKPOINT goes on at its own one.
        """
        own, train = self.folder / "checkpoint.pth", self.cfg.TRAIN
        if self.cfg.AUTO_RESUME and state.candidates(own):
            paths = state.candidates(own)
        elif train.RESUME:
            paths = [Path(train.CHECKPOINT)] if train.CHECKPOINT else state.candidates(own) or [own]
        else:
            return
        path, content = state.read(paths)
        if path != paths[0] and self.world.is_first:
            own.replace(own.with_stem("checkpoint_damaged"))  # never to be kept as the one before
        self.progress = state.restore(
            content, path, self.network, self.training,
            steps=len(self.loader), seed=self.cfg.SEED, made=self.made,
        )  # fmt: skip
        log.info(
            "going on from %s: epoch %d, step %d", path, self.progress.epoch, self.progress.step
        )

    def _expect_together(self) -> None:
        """UserError where the processes do not stand at the same step."""
        places = gather((self.progress.epoch, self.progress.step), self.world)
        if len(set(places)) > 1:
            raise UserError(
                f"the processes go on from (epoch, step) {', '.join(map(str, places))}: "
                f"all of them, on any machine, must see the same {self.folder}"
            )


def _build_network(cfg: CfgNode, world: World) -> nn.Module:
    """The network that the configuration describes, with the weights that a run starts from."""
    network = build_model(cfg)
    if cfg.MODEL.PRETRAINED:
        layers = cfg.MODEL.EXTRA.get("PRETRAINED_LAYERS", ["*"])
        checkpoint.load_pretrained(network, rooted(cfg, cfg.MODEL.PRETRAINED), layers)
    if cfg.TRAIN.BATCH_NORM == "sync" and world.size > 1:
        if world.device.type != "cuda":
            raise UserError(
                "TRAIN.BATCH_NORM = 'sync': PyTorch synchronises batch norm on GPUs only; "
                "set it to frozen or own"
            )
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network.to(world.device, memory_format=torch.channels_last)


def build_training(
    cfg: CfgNode, network: nn.Module, world: World, skeleton: Skeleton, steps_per_epoch: int
) -> Training:
    """Build what the steps of a training work with, as `TRAIN` describes it."""
    train = cfg.TRAIN
    optimizer = build_optimizer(cfg, network)
    ema = ModelEmaV3(network, decay=train.EMA_DECAY, use_warmup=True) if train.EMA_DECAY else None
    return Training(
        model=spread(network, world),
        criterion=build_loss(cfg, skeleton).to(world.device),
        optimizer=optimizer,
        schedule=build_schedule(cfg, optimizer, steps_per_epoch),
        scaler=torch.amp.GradScaler(world.device.type, enabled=train.PRECISION == "fp16"),
        ema=ema,
        world=world,
        precision=train.PRECISION,
        image_size=tuple(cfg.MODEL.IMAGE_SIZE),
        heatmap_size=tuple(cfg.MODEL.HEATMAP_SIZE),
        sigma=cfg.MODEL.SIGMA,
        part=train.BATCH_SIZE_PER_GPU,
        clip=train.CLIP_GRAD,
        keeps_norms=train.SKIP_NOT_FINITE > 0,
        freezes_norms=train.BATCH_NORM == "frozen",
    )


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Note Ctrl-C and SIGTERM, so that the loop ends between steps; a second Ctrl-C ends at once.

    Schedulers send SIGTERM before they take a machine away; with torchrun's, a process may get two.
    """
    stopping = threading.Event()
    interrupts = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            raise KeyboardInterrupt
        if not stopping.is_set():
            log.info("stopping after this step; Ctrl-C again to stop at once")
        stopping.set()

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
