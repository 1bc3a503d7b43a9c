"""The training step, and the loop of them that makes an epoch."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.core.evaluate import heatmap_accuracy
from lib.core.inference import normalise
from lib.core.runtime import autocast
from lib.dataset.heatmap import encode
from lib.dataset.transforms import crop_to_heatmap
from lib.utils.errors import UserError

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training has come: `step` batches into `epoch`, 0-based; the best score so far."""

    epoch: int = 0
    step: int = 0
    best: float = -1.0


@dataclass(frozen=True)
class Step:
    """What one step took and gave: batch, loss, and heatmaps [B, J, h, w] found and wanted."""

    batch: dict[str, Tensor]
    loss: float
    output: Tensor
    target: Tensor


class NotFiniteError(UserError):
    """A loss that is not a number; `samples` are the indices of the batch."""

    def __init__(self, loss: float, samples: list[int]) -> None:
        super().__init__(f"the loss is {loss}")
        self.samples = samples


@dataclass(frozen=True)
class Training:
    """What a training step works with; sizes are (w, h), `sigma` is in heatmap cells."""

    model: nn.Module
    criterion: nn.Module
    optimizer: optim.Optimizer
    schedule: optim.lr_scheduler.LRScheduler
    device: torch.device
    precision: str
    image_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float

    def step(self, batch: dict[str, Tensor]) -> Step:
        """Learn from one batch, as the loader gives it.

        NotFiniteError, before any weight changes, where the loss is not a number.
        """
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        joints = crop_to_heatmap(batch["joints"], self.image_size, self.heatmap_size)
        target, weight = encode(joints, batch["visible"], self.heatmap_size, self.sigma)
        with autocast(self.device, self.precision):
            output = self.model(normalise(batch["image"]))
        loss = self.criterion(output, target, weight)
        if not torch.isfinite(loss):
            raise NotFiniteError(loss.item(), batch["index"].tolist())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return Step(batch, loss.item(), output.detach(), target)


def train_epoch(
    training: Training,
    batches: Iterable[dict[str, Tensor]],
    progress: Progress,
    *,
    steps: int,
    print_every: int,
    after_step: Callable[[Step], None] = lambda step: None,
) -> float:
    """Train to the end of the epoch of `steps` steps from where `progress` stands.

    Calls `after_step` after each step, when `progress` already counts it. Shows a progress bar on
    a terminal, and logs a line every `print_every` steps. Returns the mean loss.
    """
    training.model.train()
    losses: list[float] = []
    images, begin = 0, time.perf_counter()
    title = f"epoch {progress.epoch}"
    with (
        logging_redirect_tqdm(),
        tqdm(total=steps, initial=progress.step, desc=title, disable=None, leave=False) as bar,
    ):
        for batch in batches:
            step = training.step(batch)
            progress.step += 1
            losses.append(step.loss)
            images += len(step.output)
            bar.update()
            if progress.step % print_every == 0 or progress.step == steps:
                accuracy = heatmap_accuracy(step.output, step.target)[1].item()
                loss = sum(losses) / len(losses)
                pace = images / (time.perf_counter() - begin)
                bar.set_postfix_str(f"loss {loss:.6f} accuracy {accuracy:.2f} {pace:.0f} images/s")
                log.info(
                    "%s step %d/%d: loss %.6f, accuracy %.3f, rate %.2e, %.0f images/s, %s left",
                    title, progress.step, steps, loss, accuracy,
                    training.schedule.get_last_lr()[0], pace,
                    _clock((steps - progress.step) * len(step.output) / pace),
                )  # fmt: skip
            after_step(step)
    return sum(losses) / max(1, len(losses))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
