"""Inference and training of a network in every pruning mode: one row each in a table."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from math import nan
from typing import Literal, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from yacs.config import CfgNode

from lib.analysis.benchmark.measure import Task, changed_cfg, peak_memory, times_and_limit
from lib.config.check import RUNTIMES
from lib.core.trainer import build_train_state
from lib.dataset import build_skeleton
from lib.inference.runtimes import build_runner
from lib.models import PoseNetwork, build_model, model_spec
from lib.models.pruning import prune_modes
from lib.models.tokenpose_spec import patch_grid
from lib.utils.distributed import Distributed
from lib.utils.errors import UserError
from lib.utils.macs import count_macs
from lib.utils.plot import FONT, line_style, new_panels
from lib.utils.text import markdown_table

_TORCH = ("eager", "compiled")  # runtimes whose memory PyTorch knows


class Row(NamedTuple):
    """One measured task; times are medians."""

    task: str  # infer or train
    prune: str
    precision: str
    batch: int
    runtime: str
    ms_per_image: float
    gmacs: float  # of one image
    mparams: float
    peak_mb: float  # of tensors other than the weights; nan if PyTorch does not hold them
    of_limit: float  # share of the machine's limit that the task reaches
    limit_gflops: float  # the highest rate of a large kernel in the same run
    to_none: float  # how many times as fast as the mode `none`


def time_rows(
    cfg: CfgNode,
    device: torch.device,
    task: Literal["infer", "train"],
    *,
    precisions: Sequence[str] = ("fp32", "bf16"),
    batches: Sequence[int] = (1, 16),
    runtimes: Sequence[str] = ("eager",),
    rounds: int = 9,
) -> list[Row]:
    """Time every combination that exists; those of one batch size and precision are interleaved.

    `train` is the training step that TRAIN configures, always in eager mode; its work counts as
    three times the forward's.
    """
    models, size = _build_models(cfg, device), tuple(cfg.MODEL.IMAGE_SIZE)
    passes = 3 if task == "train" else 1
    gmacs = {mode: passes * count_macs(model, size) for mode, model in models.items()}
    rows = []
    for batch, precision in product(batches, precisions):
        crops = torch.randint(0, 256, (batch, *size[::-1], 3), dtype=torch.uint8, device=device)
        tasks: dict[tuple[str, str], Task] = {}
        for runtime, (mode, model) in product(runtimes, models.items()):
            if task == "train":
                tasks["eager", mode] = _training_step(cfg, model, crops, precision)
            elif precision in RUNTIMES[runtime]:
                runner = build_runner(model, runtime, precision, size)
                tasks[runtime, mode] = torch.inference_mode()(partial(runner, crops))
        times, limit = times_and_limit(tasks, rounds, device, precision)
        rows += [
            Row(
                task=task,
                prune=mode,
                precision=precision,
                batch=batch,
                runtime=runtime,
                ms_per_image=1e3 * seconds / batch,
                gmacs=gmacs[mode],
                mparams=sum(weight.numel() for weight in models[mode].parameters()) / 1e6,
                peak_mb=peak_memory(tasks[runtime, mode], device) if runtime in _TORCH else nan,
                of_limit=2e9 * gmacs[mode] * batch / seconds / limit,
                limit_gflops=limit / 1e9,
                to_none=times[runtime, "none"] / seconds,
            )
            for (runtime, mode), seconds in times.items()
        ]
    return rows


def growth_rows(
    cfg: CfgNode,
    device: torch.device,
    *,
    patches: Sequence[int] = (4, 2, 1),
    runtimes: Sequence[str] = ("eager",),
    rounds: int = 5,
) -> dict[int, list[Row]]:
    """Time one image with smaller and smaller patches: number of visual tokens -> rows."""
    if "MODEL.PATCH_SIZE" not in model_spec(cfg).export_keys(cfg):
        raise UserError(f"MODEL.NAME = {cfg.MODEL.NAME!r}: this network has no patches to vary")
    rows = {}
    for patch in patches:
        side = 4 * patch if cfg.MODEL.NAME == "pose_tokenpose_t" else patch
        finer = changed_cfg(cfg, "MODEL.PATCH_SIZE", [side, side])
        width, height = patch_grid(finer)
        rows[width * height] = time_rows(
            finer, device, "infer", precisions=("fp32",), batches=(1,), runtimes=runtimes,
            rounds=rounds,
        )  # fmt: skip
    return rows


def growth_plot(rows: Mapping[int, Sequence[Row]]) -> Figure:
    """Draw ms per image against visual tokens, a line for each pruning mode."""
    figure, (axes,) = new_panels(
        height=3.6, width=6.0, xscale="log", yscale="log", xlabel="visual tokens",
        ylabel="ms per image, fp32, batch 1",
    )  # fmt: skip
    modes = list(dict.fromkeys(row.prune for row in next(iter(rows.values()))))
    for line in zip(*rows.values(), strict=True):  # the same variants for each number of tokens
        mode, runtime, times = line[0].prune, line[0].runtime, [row.ms_per_image for row in line]
        axes.plot(
            list(rows), times, marker="o", color=line_style(modes.index(mode))["color"],
            linestyle="-" if runtime == "eager" else "--",
            label=f"{mode}, {runtime}: {times[-1]:.3g} ms",
        )  # fmt: skip
    axes.set_xticks(list(rows), [str(count) for count in rows])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=FONT)
    return figure


def as_table(rows: Iterable[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [[f"{x:.2f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    return markdown_table(Row._fields, lines)


def _build_models(cfg: CfgNode, device: torch.device) -> dict[str, PoseNetwork]:
    """Build the network in each pruning mode; in `none` alone if it does not prune."""
    prunes = "MODEL.SPARSITY.PRUNE" in model_spec(cfg).export_keys(cfg)
    models = {}
    for mode in prune_modes() if prunes else ("none",):
        torch.manual_seed(0)
        model = build_model(changed_cfg(cfg, "MODEL.SPARSITY.PRUNE", mode)).eval()
        models[mode] = model.to(device).to(memory_format=torch.channels_last)
    return models


def _training_step(cfg: CfgNode, model: PoseNetwork, crops: Tensor, precision: str) -> Task:
    """The step of a real training, on people with random joints."""
    batch, size = len(crops), torch.tensor(cfg.MODEL.IMAGE_SIZE)
    cfg = changed_cfg(cfg, "TRAIN.PRECISION", precision, "TRAIN.BATCH_SIZE_PER_GPU", batch)
    distributed, skeleton = Distributed(crops.device), build_skeleton(cfg)
    state = build_train_state(cfg, model, distributed, skeleton, steps_per_epoch=1000)
    state.train_mode()
    people = {
        "image": crops,
        "joints": torch.rand(batch, cfg.MODEL.NUM_JOINTS, 2) * size,
        "visible": torch.ones(batch, cfg.MODEL.NUM_JOINTS),
        "index": torch.arange(batch),
    }
    return partial(state.step, people)
