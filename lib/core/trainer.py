"""A whole training: from a configuration to the weights it ends with."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tensorboardX import SummaryWriter
from yacs.config import CfgNode

from lib.core.engine import NotFiniteError, Progress, Step, Training, train_epoch
from lib.core.loss import build_loss
from lib.core.optimizer import build_optimizer, build_schedule
from lib.core.pictures import debug_pictures
from lib.core.tester import Tester
from lib.dataset import build_dataset, build_train_loader, rooted
from lib.models import build_model
from lib.utils import checkpoint, drawing
from lib.utils.distributed import World, spread
from lib.utils.errors import UserError

log = logging.getLogger(__name__)


class Trainer:
    """Trains, tests after every epoch, and keeps what it takes to go on later.

    `folder` gets `checkpoint.pth` (everything), `model_best.pth` and `final_state.pth` (weights),
    `log_folder` the TensorBoard logs.
    """

    def __init__(self, cfg: CfgNode, world: World, folder: Path, log_folder: Path) -> None:
        self.cfg, self.world, self.folder = cfg, world, folder
        torch.manual_seed(cfg.SEED)
        self.dataset = build_dataset(cfg, "train")
        self.tester = Tester(cfg, world)
        self.loader = build_train_loader(cfg, self.dataset, world.rank, world.size)
        self.network = build_model(cfg)
        if cfg.MODEL.PRETRAINED:
            layers = cfg.MODEL.EXTRA.get("PRETRAINED_LAYERS", ["*"])
            path = rooted(cfg, cfg.MODEL.PRETRAINED)
            checkpoint.load_pretrained(self.network, path, layers)
        self.network.to(world.device, memory_format=torch.channels_last)
        optimizer = build_optimizer(cfg, self.network)
        self.training = Training(
            model=spread(self.network, world),
            criterion=build_loss(cfg, self.dataset.skeleton).to(world.device),
            optimizer=optimizer,
            schedule=build_schedule(cfg, optimizer, len(self.loader)),
            device=world.device,
            precision=cfg.TRAIN.PRECISION,
            image_size=tuple(cfg.MODEL.IMAGE_SIZE),
            heatmap_size=tuple(cfg.MODEL.HEATMAP_SIZE),
            sigma=cfg.MODEL.SIGMA,
        )
        self.progress = Progress(epoch=cfg.TRAIN.BEGIN_EPOCH)
        self.writer = SummaryWriter(str(log_folder)) if world.is_first else None
        self._resume()

    def run(self) -> None:
        """Train to the last epoch; after Ctrl-C or SIGTERM save the state, KeyboardInterrupt."""
        progress, steps = self.progress, len(self.loader)
        log.info(
            "training on %d people, epochs %d to %d of %d steps",
            len(self.dataset), progress.epoch, self.cfg.TRAIN.END_EPOCH - 1, steps,
        )  # fmt: skip
        with _signals() as stopping:

            def after_step(step: Step) -> None:
                if progress.step == 1 and self.writer is not None:
                    self._draw(step)
                if stopping.is_set():
                    self._save_checkpoint()
                    raise KeyboardInterrupt

            while progress.epoch < self.cfg.TRAIN.END_EPOCH:
                self.loader.batch_sampler.set_state(progress.epoch, progress.step)
                try:
                    loss = train_epoch(
                        self.training,
                        self.loader,
                        progress,
                        steps=steps,
                        print_every=self.cfg.PRINT_FREQ,
                        after_step=after_step,
                    )
                except NotFiniteError as error:
                    raise self._located(error) from None
                self._end_epoch(loss)
                if stopping.is_set():
                    raise KeyboardInterrupt
        self._save_weights("final_state.pth")

    def _draw(self, step: Step) -> None:
        """Show what the epoch's first batch looks like, where DEBUG asks for it."""
        pictures = debug_pictures(self.cfg, step, self.dataset.skeleton)
        for name, picture in pictures.items():
            path = self.folder / f"train_{self.progress.epoch:03d}_{name}.jpg"
            drawing.save_image(path, picture)
            self.writer.add_image(f"train/{name}", picture, self.progress.epoch, dataformats="HWC")

    def _located(self, error: NotFiniteError) -> UserError:
        """Say where in the training, and on which pictures, the loss ceased to be a number."""
        names = [self.dataset.records[index].image for index in error.samples]
        return UserError(
            f"epoch {self.progress.epoch}, step {self.progress.step}: {error} "
            f"on {', '.join(names)}; lower TRAIN.LR or raise TRAIN.WARMUP_STEPS"
        )

    def _end_epoch(self, loss: float) -> None:
        """Test, note the scores, and save."""
        progress = self.progress
        scores = self.tester.score(self.tester.predict(self.network)) or {}
        progress.epoch, progress.step = progress.epoch + 1, 0
        if self.writer is not None:
            self.writer.add_scalar("train/loss", loss, progress.epoch)
            rate = self.training.schedule.get_last_lr()[0]
            self.writer.add_scalar("train/rate", rate, progress.epoch)
            for name, value in scores.items():
                self.writer.add_scalar(f"test/{name.replace('@', '_')}", value, progress.epoch)
            self.writer.flush()
        if scores:
            log.info("epoch %d: PCKh@0.5 %.2f", progress.epoch - 1, scores["Mean"])
            if scores["Mean"] > progress.best:
                progress.best = scores["Mean"]
                self._save_weights("model_best.pth")
        self._save_checkpoint()

    def _save_weights(self, name: str) -> None:
        if self.world.is_first:
            checkpoint.save_atomically(self.network.state_dict(), self.folder / name)

    def _save_checkpoint(self) -> None:
        """Write everything that it takes to go on exactly here."""
        if not self.world.is_first:
            return
        state = {
            "format": checkpoint.FORMAT,
            "model": self.network.state_dict(),
            "optimizer": self.training.optimizer.state_dict(),
            "schedule": self.training.schedule.state_dict(),
            "progress": vars(self.progress),
            "steps": len(self.loader),
            "random": torch.get_rng_state(),
            "seed": self.cfg.SEED,
            "config": self.cfg.dump(),
        }
        checkpoint.save_atomically(state, self.folder / "checkpoint.pth")

    def _resume(self) -> None:
        """Go on from a checkpoint, where the configuration asks for it and there is one."""
        path = self.folder / "checkpoint.pth"
        if self.cfg.TRAIN.RESUME and self.cfg.TRAIN.CHECKPOINT:
            path = Path(self.cfg.TRAIN.CHECKPOINT)
        elif not (self.cfg.TRAIN.RESUME or (self.cfg.AUTO_RESUME and path.exists())):
            return
        state = checkpoint.read_checkpoint(path)
        self._restore(state, path)
        log.info(
            "going on from %s: epoch %d, step %d", path, self.progress.epoch, self.progress.step
        )

    def _restore(self, state: Any, path: Path) -> None:
        if not isinstance(state, dict) or state.get("format") != checkpoint.FORMAT:
            raise UserError(f"{path} is not a training checkpoint of format {checkpoint.FORMAT}")
        here = {"seed": self.cfg.SEED, "steps": len(self.loader)}
        for name, value in here.items():
            if state.get(name) != value:
                raise UserError(
                    f"{path} was trained with {name} {state.get(name)}, here it is {value}: "
                    "go on with the same SEED, batch size, people and processes"
                )
        if state.get("config") != self.cfg.dump():
            log.warning("the configuration is not the one of %s; rates go on as there", path)
        try:
            self.network.load_state_dict(state["model"])  # counters of batch norm too
            self.training.optimizer.load_state_dict(state["optimizer"])
            self.training.schedule.load_state_dict(state["schedule"])
            self.progress = Progress(**state["progress"])
            if min(self.progress.epoch, self.progress.step) < 0:
                raise ValueError("its progress is below 0")
            torch.set_rng_state(state["random"])
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"{path} does not fit this network and TRAIN.OPTIMIZER: {error}"
            ) from None


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Note Ctrl-C and SIGTERM, so that the loop ends between two steps; a second one ends at once.

    Schedulers send SIGTERM before they take a machine away.
    """
    stopping = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        log.info("stopping after this step; again to stop at once")

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
