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

_Key = tuple[str, str]  # network and pruning mode
_TORCH = ("eager", "compiled")  # runtimes whose memory PyTorch knows


class Row(NamedTuple):
    """One measured task; times are medians."""

    network: str  # file of its configuration; empty if there is only one
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
    to_none: float  # how many times as fast as the mode `none`; nan if that is not timed


def time_rows(
    cfg: CfgNode,
    device: torch.device,
    task: Literal["infer", "train"],
    *,
    networks: Mapping[str, CfgNode] | None = None,
    precisions: Sequence[str] = ("fp32", "bf16"),
    batches: Sequence[int] = (1, 16),
    runtimes: Sequence[str] = ("eager",),
    rounds: int = 9,
) -> list[Row]:
    """Time every combination that exists; those of one batch size and precision are interleaved.

    These are all pruning modes of the network or, instead, `networks` as they are configured.
    `train` is the training step that TRAIN configures, always in eager mode; its work counts as
    three times the forward's.
    """
    cfgs = _by_mode(cfg) if networks is None else _by_network(networks)
    models = {key: _build(cfg, device) for key, cfg in cfgs.items()}
    passes = 3 if task == "train" else 1
    gmacs = {key: passes * count_macs(models[key], _size(cfg)) for key, cfg in cfgs.items()}
    rows = []
    for batch, precision in product(batches, precisions):
        tasks: dict[tuple[str, _Key], Task] = {}
        for runtime, (key, model) in product(runtimes, models.items()):
            size = _size(cfgs[key])
            crops = torch.randint(0, 256, (batch, *size[::-1], 3), dtype=torch.uint8, device=device)
            if task == "train":
                tasks["eager", key] = _training_step(cfgs[key], model, crops, precision)
            elif precision in RUNTIMES[runtime]:
                runner = build_runner(model, runtime, precision, size)
                tasks[runtime, key] = torch.inference_mode()(partial(runner, crops))
        times, limit = times_and_limit(tasks, rounds, device, precision)
        rows += [
            Row(
                network=key[0],
                task=task,
                prune=key[1],
                precision=precision,
                batch=batch,
                runtime=runtime,
                ms_per_image=1e3 * seconds / batch,
                gmacs=gmacs[key],
                mparams=_mparams(models[key]),
                peak_mb=peak_memory(tasks[runtime, key], device) if runtime in _TORCH else nan,
                of_limit=2e9 * gmacs[key] * batch / seconds / limit,
                limit_gflops=limit / 1e9,
                to_none=times.get((runtime, (key[0], "none")), nan) / seconds,
            )
            for (runtime, key), seconds in times.items()
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


def count_table(networks: Mapping[str, CfgNode]) -> str:
    """Return the parameters and multiply-adds of networks as a Markdown table."""
    lines = []
    for name, cfg in networks.items():
        model = build_model(cfg)
        lines.append([name, f"{_mparams(model):.2f}", f"{count_macs(model, _size(cfg)):.2f}"])
    return markdown_table(["network", "parameters (M)", "GMACs"], lines)


def _by_mode(cfg: CfgNode) -> dict[_Key, CfgNode]:
    """The network in each pruning mode; in `none` alone if it does not prune."""
    modes = prune_modes() if _prunes(cfg) else ("none",)
    return {("", mode): changed_cfg(cfg, "MODEL.SPARSITY.PRUNE", mode) for mode in modes}


def _by_network(networks: Mapping[str, CfgNode]) -> dict[_Key, CfgNode]:
    return {
        (name, cfg.MODEL.SPARSITY.PRUNE if _prunes(cfg) else "none"): cfg
        for name, cfg in networks.items()
    }


def _prunes(cfg: CfgNode) -> bool:
    return "MODEL.SPARSITY.PRUNE" in model_spec(cfg).export_keys(cfg)


def _size(cfg: CfgNode) -> tuple[int, int]:
    return cfg.MODEL.IMAGE_SIZE[0], cfg.MODEL.IMAGE_SIZE[1]


def _mparams(model: PoseNetwork) -> float:
    return sum(weight.numel() for weight in model.parameters()) / 1e6


def _build(cfg: CfgNode, device: torch.device) -> PoseNetwork:
    torch.manual_seed(0)
    return build_model(cfg).eval().to(device).to(memory_format=torch.channels_last)


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
