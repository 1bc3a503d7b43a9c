"""The training step, and the loop of them that makes an epoch."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.core.evaluate import heatmap_accuracy
from lib.core.finite import first_bad_gradient, first_bad_layer
from lib.core.inference import normalise
from lib.core.runtime import autocast
from lib.dataset.heatmap import encode
from lib.dataset.transforms import crop_to_heatmap
from lib.utils.distributed import World, any_of
from lib.utils.errors import UserError

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training has come: `step` steps into `epoch`, 0-based, and what it met on the way.

    `loss_sum` is over the `loss_count` steps of this epoch. `skipped` counts steps without a finite
    loss or gradient, `bad` the people (by index) of unreadable images; `history` has an entry for
    each epoch: loss, rate, and scores where there are.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: int = 0
    bad: list[int] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean loss of this epoch so far."""
        return self.loss_sum / max(1, self.loss_count)

    def end_epoch(self) -> None:
        """Stand at the beginning of the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.loss_count = 0.0, 0


@dataclass(frozen=True)
class Step:
    """What one step took and gave: batch, loss, and heatmaps [B, J, h, w] found and wanted."""

    batch: dict[str, Tensor]
    loss: float
    output: Tensor
    target: Tensor


class NotFiniteError(UserError):
    """A loss or gradient that is not finite; `samples` are the indices of the batch."""

    def __init__(self, what: str, samples: list[int]) -> None:
        super().__init__(what)
        self.samples = samples


@dataclass(frozen=True)
class Training:
    """What a training step works with; sizes are (w, h), `sigma` is in heatmap cells.

    A batch is computed in parts of `part` people, whose gradients are summed. `clip` is the largest
    norm of a gradient (0: any). With `keeps_norms` a failed step leaves batch norm's statistics as
    they were; `freezes_norms` never changes them.
    """

    model: nn.Module
    criterion: nn.Module
    optimizer: optim.Optimizer
    schedule: optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    world: World
    precision: str
    image_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float
    part: int
    clip: float = 0.0
    keeps_norms: bool = False
    freezes_norms: bool = False

    def start(self) -> None:
        """Get the network ready to learn."""
        self.model.train()
        if self.freezes_norms:
            for norm in _norms(self.model):
                norm.eval()

    def step(self, batch: dict[str, Tensor], number: int = 0) -> Step:
        """Learn from one batch, as the loader gives it, in the training's step `number`.

        NotFiniteError, before any weight changes, where loss or gradient is not finite.
        """
        device = self.world.device
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        joints = crop_to_heatmap(batch["joints"], self.image_size, self.heatmap_size)
        target, weight = encode(joints, batch["visible"], self.heatmap_size, self.sigma)
        norms = _statistics(self.model) if self.keeps_norms else []
        self.optimizer.zero_grad(set_to_none=True)
        people, total, outputs = len(target), torch.zeros((), device=device), []
        for begin in range(0, people, self.part):
            rows = slice(begin, min(begin + self.part, people))
            with self._shared(last=rows.stop == people):
                with autocast(device, self.precision):
                    output = self.model(normalise(batch["image"][rows]))
                loss = self.criterion(output, target[rows], weight[rows])
                loss = loss * ((rows.stop - begin) / people)
                self.scaler.scale(loss).backward()
            total += loss.detach()
            outputs.append(output.detach())
        self.scaler.unscale_(self.optimizer)
        try:
            self._update(total, batch, number)
        except NotFiniteError:
            if self.scaler.is_enabled():
                self.scaler.update()
            for statistic, before in norms:
                statistic.copy_(before)
            raise
        finally:
            self.schedule.step()
        return Step(batch, total.item(), torch.cat(outputs), target)

    def _update(self, loss: Tensor, batch: dict[str, Tensor], number: int) -> None:
        """Let the gradients change the weights, if all is finite."""
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = get_total_norm([weight.grad for weight in weights], foreach=True)
        finite = torch.stack((loss.isfinite(), norm.isfinite())).tolist()
        bad_loss, bad_gradient = any_of([not good for good in finite], self.world)
        # In fp16 a scaled gradient may overflow: the scaler leaves that step out, and scales less.
        overflow = bad_gradient and not bad_loss and self.scaler.is_enabled()
        if bad_loss or (bad_gradient and not (overflow and self.scaler.get_scale() > 1)):
            raise self._failure(loss, batch, bad_loss)
        if self.clip > 0 and not overflow:
            clip_grads_with_norm_(weights, self.clip, norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if overflow:
            log.info("a gradient overflowed, the loss is scaled by %g now", self.scaler.get_scale())
        if self.ema is not None:
            self.ema.update(_plain(self.model), step=number)

    def _shared(self, last: bool) -> AbstractContextManager:
        """Processes share their gradients once a step, with its last part."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _failure(self, loss: Tensor, batch: dict[str, Tensor], bad_loss: bool) -> NotFiniteError:
        """Say what is not finite, in which layer that begins, and on which people."""
        model, samples = _plain(self.model), batch["index"].tolist()
        if not bad_loss:
            layer = first_bad_gradient(model)
            return NotFiniteError(f"the gradient of {layer or 'some layer'} is not finite", samples)
        if loss.isfinite():
            return NotFiniteError("the loss of another process is not finite", [])

        def run() -> None:
            with autocast(self.world.device, self.precision):
                for part in batch["image"].split(self.part):
                    model(normalise(part))

        layer = first_bad_layer(model, run)
        where = f"begins in {layer}" if layer else "comes from the loss alone"
        return NotFiniteError(f"the loss is {loss.item()}, which {where},", samples)


def train_epoch(
    training: Training,
    batches: Iterable[dict[str, Tensor]],
    progress: Progress,
    *,
    steps: int,
    print_every: int,
    on_failure: Callable[[NotFiniteError], None],
    after_step: Callable[[Step | None], None] = lambda step: None,
) -> None:
    """Train to the end of the epoch of `steps` steps from where `progress` stands.

    Calls `after_step` after each step, when `progress` already counts it. A step without a finite
    loss and gradient goes to `on_failure`, which raises or lets it be left out; its `after_step`
    gets None. Shows a progress bar on a terminal, and logs a line every `print_every` steps.
    """
    training.start()
    images, begin = 0, time.perf_counter()
    title = f"epoch {progress.epoch}"
    with (
        logging_redirect_tqdm(),
        tqdm(total=steps, initial=progress.step, desc=title, disable=None, leave=False) as bar,
    ):
        for batch in batches:
            step = None
            try:
                step = training.step(batch, progress.epoch * steps + progress.step)
            except NotFiniteError as error:
                on_failure(error)
            progress.step += 1
            bar.update()
            images += len(batch["image"])
            if step is not None:
                progress.loss_sum += step.loss
                progress.loss_count += 1
            if step is not None and (progress.step % print_every == 0 or progress.step == steps):
                accuracy = heatmap_accuracy(step.output, step.target)[1].item()
                pace = images / (time.perf_counter() - begin)
                bar.set_postfix_str(
                    f"loss {progress.loss:.6f}, accuracy {accuracy:.2f}, {pace:.0f} images/s"
                )
                log.info(
                    "%s step %d/%d: loss %.6f, accuracy %.3f, rate %.2e, %.0f images/s, %s left",
                    title, progress.step, steps, progress.loss, accuracy,
                    training.schedule.get_last_lr()[0], pace,
                    _clock((steps - progress.step) * len(step.output) / pace),
                )  # fmt: skip
            after_step(step)


def _plain(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _norms(model: nn.Module) -> Iterator[BatchNorm]:
    return (module for module in model.modules() if isinstance(module, BatchNorm))


def _statistics(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Batch norm's running statistics, each with a copy."""
    return [(value, value.clone()) for norm in _norms(model) for value in norm.buffers()]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
