"""The training step, and the loop of steps that makes an epoch."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from lib.core.loss import build_loss
from lib.core.optimizer import build_optimizer, build_scheduler
from lib.dataset import Skeleton
from lib.dataset.heatmap import encode
from lib.dataset.transforms import rescale_joints
from lib.inference.pipeline import PixelsToHeatmaps
from lib.inference.runtimes import autocast
from lib.metrics.heatmap_accuracy import heatmap_accuracy
from lib.models import PoseNetwork
from lib.utils.distributed import Distributed, all_reduce_any, unwrap, wrap_ddp
from lib.utils.errors import UserError
from lib.utils.machine import warn_if_slow

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """The position in a training, `step` steps into `epoch`, both 0-based, and its records.

    `best` is the best primary score of the metric, None before the first. `loss_sum` is over the
    `loss_count` steps of this epoch. `skipped` counts steps without a finite loss or gradient,
    `bad_images` are the people (by index) with an unreadable image. `history` has an entry for
    each epoch: loss, learning rate, and the scores of tested epochs.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: int = 0
    bad_images: list[int] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean loss of this epoch so far."""
        return self.loss_sum / max(1, self.loss_count)

    def end_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.loss_count = 0.0, 0


@dataclass(frozen=True)
class StepResult:
    """Batch, loss, and heatmaps [B, J, h, w], predicted and target, of one step."""

    batch: dict[str, Tensor]
    loss: float
    output: Tensor
    target: Tensor

    @cached_property
    def accuracy(self) -> float:
        """The mean of `heatmap_accuracy`."""
        return heatmap_accuracy(self.output, self.target)[1].item()


class NotFiniteError(UserError):
    """The loss or a gradient is not finite; `samples` are the people of the batch, by index."""

    def __init__(self, message: str, samples: list[int]) -> None:
        super().__init__(message)
        self.samples = samples


@dataclass(frozen=True)
class TrainState:
    """What a training step needs; sizes are (w, h), `sigma` is in heatmap cells.

    `model` turns crops into heatmaps. A batch is computed in micro-batches of `micro_batch` people,
    whose gradients are summed. `clip_grad` is the largest norm of the gradient (0: no limit). With
    `restore_norms` a failed step leaves batch norm's statistics unchanged; with `freeze_norms` they
    never change. With `train_outside` a joint outside the crop counts, with an empty heatmap.
    `unbiased` as of `crop_matrix`.
    """

    model: nn.Module
    criterion: nn.Module
    optimizer: optim.Optimizer
    scheduler: optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    distributed: Distributed
    precision: str
    image_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float
    micro_batch: int
    clip_grad: float = 0.0
    restore_norms: bool = False
    freeze_norms: bool = False
    train_outside: bool = False
    unbiased: bool = True

    @property
    def network(self) -> PoseNetwork:
        """The network whose weights are trained."""
        return cast(PoseNetwork, unwrap(self.model).network)

    def train_mode(self) -> None:
        """Set the network to training mode; frozen batch norms stay in evaluation mode."""
        self.model.train()
        if self.freeze_norms:
            for norm in _norms(self.model):
                norm.eval()

    def targets(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return target heatmaps [B, J, h, w] and weights [B, J] of a batch on the device."""
        joints = rescale_joints(batch["joints"], self.image_size, self.heatmap_size, self.unbiased)
        target, weight = encode(joints, batch["visible"], self.heatmap_size, self.sigma)
        return target, batch["visible"].to(weight) if self.train_outside else weight

    def step(self, batch: dict[str, Tensor], number: int = 0) -> StepResult:
        """Train on one batch of the loader; `number` is the step, counted over all epochs.

        NotFiniteError, before any weight changes, if the loss or the gradient is not finite.
        """
        device = self.distributed.device
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        target, weight = self.targets(batch)
        statistics = _statistics(self.model) if self.restore_norms else []
        self.optimizer.zero_grad(set_to_none=True)
        people, total, outputs = len(target), torch.zeros((), device=device), []
        for begin in range(0, people, self.micro_batch):
            rows = slice(begin, min(begin + self.micro_batch, people))
            with self._sync_gradients(is_last=rows.stop == people):
                with autocast(device, self.precision):
                    output = self.model(batch["image"][rows])
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
            for statistic, before in statistics:
                statistic.copy_(before)
            raise
        finally:
            self.scheduler.step()
        return StepResult(batch, total.item(), torch.cat(outputs), target)

    def _update(self, loss: Tensor, batch: dict[str, Tensor], number: int) -> None:
        """Step the optimizer; NotFiniteError if the loss or the gradient is not finite."""
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = get_total_norm(gradients, foreach=True)
        finite = torch.stack((loss.isfinite(), norm.isfinite())).tolist()
        bad_loss, bad_gradient = all_reduce_any([not ok for ok in finite], self.distributed)
        # In fp16 a scaled gradient may overflow: the scaler skips that step and lowers the scale.
        overflow = bad_gradient and not bad_loss and self.scaler.is_enabled()
        if bad_loss or (bad_gradient and not (overflow and self.scaler.get_scale() > 1)):
            raise self._not_finite(loss, batch, bad_loss)
        if self.clip_grad > 0 and not overflow:
            clip_grads_with_norm_(weights, self.clip_grad, norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if overflow:
            log.info("gradient overflow, loss scale is now %g", self.scaler.get_scale())
        if self.ema is not None:
            self.ema.update(self.network, step=number)

    def _sync_gradients(self, is_last: bool) -> AbstractContextManager:
        """All-reduce gradients once a step, with the last micro-batch."""
        if is_last or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _not_finite(self, loss: Tensor, batch: dict[str, Tensor], bad_loss: bool) -> NotFiniteError:
        samples = batch["index"].tolist()
        if not bad_loss:
            layer = "some layer"
            for name, weight in self.network.named_parameters():
                if weight.grad is not None and not weight.grad.isfinite().all():
                    layer = name  # the last one, since backward starts there
            return NotFiniteError(f"the gradient of {layer} is not finite", samples)
        if loss.isfinite():
            return NotFiniteError("the loss of another process is not finite", [])
        model = unwrap(self.model)

        def forward() -> None:
            with autocast(self.distributed.device, self.precision):
                for images in batch["image"].split(self.micro_batch):
                    model(images)

        layer = _first_bad_layer(self.network, forward)
        where = f"first in {layer}" if layer else "in the loss alone"
        return NotFiniteError(f"the loss is {loss.item()}, {where},", samples)


def build_train_state(
    cfg: CfgNode,
    network: PoseNetwork,
    distributed: Distributed,
    skeleton: Skeleton,
    steps_per_epoch: int,
) -> TrainState:
    """Build model, loss, optimizer and schedule of the `TRAIN` keys."""
    train = cfg.TRAIN
    warn_if_slow(distributed.device, train.PRECISION)
    optimizer = build_optimizer(cfg, network)
    ema = ModelEmaV3(network, decay=train.EMA_DECAY, use_warmup=True) if train.EMA_DECAY else None
    return TrainState(
        model=wrap_ddp(PixelsToHeatmaps(network), distributed),
        criterion=build_loss(cfg, skeleton).to(distributed.device),
        optimizer=optimizer,
        scheduler=build_scheduler(cfg, optimizer, steps_per_epoch),
        scaler=torch.amp.GradScaler(distributed.device.type, enabled=train.PRECISION == "fp16"),
        ema=ema, distributed=distributed, precision=train.PRECISION,
        image_size=tuple(cfg.MODEL.IMAGE_SIZE), heatmap_size=tuple(cfg.MODEL.HEATMAP_SIZE),
        sigma=cfg.MODEL.SIGMA, micro_batch=train.BATCH_SIZE_PER_GPU, clip_grad=train.CLIP_GRAD,
        restore_norms=train.SKIP_NOT_FINITE > 0, freeze_norms=train.BATCH_NORM == "frozen",
        train_outside=cfg.LOSS.USE_OUTSIDE_JOINTS,
        unbiased=cfg.DATASET.UNBIASED,
    )  # fmt: skip


def train_epoch(
    state: TrainState,
    batches: Iterable[dict[str, Tensor]],
    progress: Progress,
    *,
    steps: int,
    print_every: int,
) -> Iterator[StepResult | NotFiniteError]:
    """Train from the position of `progress` to the end of the epoch, which has `steps` steps.

    Yields the result of each step, or the error if its loss or gradient is not finite; `progress`
    includes the step by then. Shows a progress bar on a terminal, logs every `print_every` steps.
    """
    state.train_mode()
    images, start = 0, time.perf_counter()
    title = f"epoch {progress.epoch}"
    with (
        logging_redirect_tqdm(),
        tqdm(total=steps, initial=progress.step, desc=title, disable=None, leave=False) as bar,
    ):
        for batch in batches:
            result: StepResult | NotFiniteError
            try:
                result = state.step(batch, progress.epoch * steps + progress.step)
            except NotFiniteError as error:
                result = error
            progress.step += 1
            bar.update()
            images += len(batch["image"])
            if isinstance(result, StepResult):
                progress.loss_sum += result.loss
                progress.loss_count += 1
                if progress.step % print_every == 0 or progress.step == steps:
                    speed = images / (time.perf_counter() - start)
                    left = (steps - progress.step) * len(batch["image"]) / speed
                    line = (
                        f"loss {progress.loss:.6f}, accuracy {result.accuracy:.3f}, "
                        f"lr {state.scheduler.get_last_lr()[0]:.2e}, "
                        f"{speed:.0f} images/s, {tqdm.format_interval(left)} left"
                    )
                    bar.set_postfix_str(line)
                    log.info("%s step %d/%d: %s", title, progress.step, steps, line)
            yield result


@torch.no_grad()
def _first_bad_layer(model: nn.Module, run: Callable[[], object]) -> str:
    """Name the first layer whose output is not finite while `run` runs the model; "" if none.

    Synchronised batch norm is in evaluation mode meanwhile, since other processes do not take part.
    """
    layers = {layer: name for name, layer in model.named_modules() if not list(layer.children())}
    bad: list[str] = []

    def hook(module: nn.Module, inputs: object, output: object) -> None:
        if module in layers and isinstance(output, Tensor) and not output.isfinite().all():
            bad.append(layers[module])

    norms = [layer for layer in layers if isinstance(layer, nn.SyncBatchNorm) and layer.training]
    handle = register_module_forward_hook(hook)
    try:
        for norm in norms:
            norm.eval()
        run()
    finally:
        handle.remove()
        for norm in norms:
            norm.train()
    return bad[0] if bad else ""


def _norms(model: nn.Module) -> Iterator[BatchNorm]:
    return (module for module in model.modules() if isinstance(module, BatchNorm))


def _statistics(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Batch norm's running statistics, each with a copy."""
    return [(value, value.clone()) for norm in _norms(model) for value in norm.buffers()]
