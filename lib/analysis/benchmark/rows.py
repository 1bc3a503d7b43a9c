"""Networks in all their pruning modes, measured in one run: a row each in a table."""

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from yacs.config import CfgNode

from lib.analysis.benchmark.measure import (
    Task,
    changed_cfg,
    interleave,
    limit_kernels,
    peak_memory,
)
from lib.config.check import RUNTIMES
from lib.core.engine import build_train_state
from lib.dataset import build_skeleton
from lib.inference.runtimes import TYPES, build_runner
from lib.models import PoseNetwork, build_model, model_spec
from lib.models.pruning import prune_modes
from lib.models.tokenpose_spec import patch_grid
from lib.utils.distributed import Distributed
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import read_json
from lib.utils.macs import count_macs
from lib.utils.text import markdown_table

_NOT_SCORED = {"MODEL_FILE", "RUNTIME", "PRECISION", "BATCH_SIZE_PER_GPU"}  # of TEST
Times = dict[Any, list[float]]  # seconds of each round


class Variant(NamedTuple):
    """What runs, and how."""

    network: str
    prune: str
    task: str  # infer or train
    runtime: str
    precision: str
    batch: int


class Figures(NamedTuple):
    """The numbers of a row; nan if unknown."""

    ms: float  # per image, median
    of_limit: float  # share of the machine's limit that the task reaches
    to_none: float  # how many times as fast as without pruning, median over the rounds
    to_first: float  # the same relative to the first row of the task and batch size
    gmacs: float  # of one image
    mparams: float
    peak_mb: float  # of tensors other than the weights, if PyTorch holds them
    score: float


class Network(NamedTuple):
    """A network in evaluation mode, and what is known about it; numbers as in `Figures`."""

    cfg: CfgNode
    model: PoseNetwork
    gmacs: float
    mparams: float
    score: float


def time_rows(
    cfgs: Mapping[str, CfgNode],
    device: torch.device,
    batches: Mapping[str, Sequence[int]],
    *,
    precisions: Sequence[str] = ("fp32",),
    runtimes: Sequence[str] = ("eager",),
    rounds: int = 9,
) -> tuple[dict[Variant, Figures], dict[str, float]]:
    """Time networks, by YAML file, in every combination that exists.

    `batches` are the batch sizes of the tasks `infer` and `train`; the rows of one size are
    interleaved. `train` is the step that TRAIN configures, in eager mode; its work counts as three
    times the forward's. Also returns the machine's limits in operations per second, by precision;
    `spread` is the largest median of a kernel of these as a multiple of its shortest time.
    UserError if no combination exists.
    """
    networks = _build_networks(cfgs, device)
    kernels = {name: limit_kernels(device, TYPES.get(name)) for name in (*precisions, "int8")}
    together: dict[Any, Task] = {kernel: kernel for group in kernels.values() for kernel in group}
    seconds: Times = defaultdict(list)
    peaks: dict[Variant, float] = {}
    for task, sizes in batches.items():
        used = runtimes if task == "infer" else ("eager",)
        ways = [way for way in product(used, precisions) if way[1] in RUNTIMES[way[0]]]
        for batch in sizes if ways else ():
            variants = [Variant(*key, task, *way, batch) for key, way in product(networks, ways)]
            tasks = {row: prepare(networks[row[:2]], device, *row[2:]) for row in variants}
            for key, times in interleave(together | dict(tasks), rounds, device).items():
                seconds[key] += times
            for row, run in tasks.items():
                by_torch = row.runtime in ("eager", "compiled")
                peaks[row] = peak_memory(run, device) if by_torch else math.nan
    if not peaks:
        words = ",".join(runtimes), ",".join(precisions)
        raise UserError("--runtime {} does not compute in --precision {}".format(*words))
    limits = {
        precision: max(operations / min(seconds[kernel]) for kernel, operations in group.items())
        for precision, group in kernels.items()
        if group
    }
    limits["spread"] = max(median(seconds[kernel]) / min(seconds[kernel]) for kernel in together)
    return _figures(networks, seconds, peaks, limits), limits


def prepare(
    network: Network, device: torch.device, task: str, runtime: str, precision: str, batch: int
) -> Task:
    """Return what a row runs: inference, or the step of a real training with random joints."""
    cfg, model = network.cfg, network.model
    width, height = cfg.MODEL.IMAGE_SIZE
    crops = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, device=device)
    if task == "infer":
        runner = build_runner(model, runtime, precision, (width, height), freeze=True)
        return torch.inference_mode()(partial(runner, crops))
    cfg = changed_cfg(cfg, "TRAIN.PRECISION", precision, "TRAIN.BATCH_SIZE_PER_GPU", batch)
    state = build_train_state(
        cfg, copy.deepcopy(model), Distributed(device), build_skeleton(cfg), steps_per_epoch=1000
    )
    state.train_mode()
    people = {
        "image": crops,
        "joints": torch.rand(batch, cfg.MODEL.NUM_JOINTS, 2) * torch.tensor([width, height]),
        "visible": torch.ones(batch, cfg.MODEL.NUM_JOINTS),
        "index": torch.arange(batch),
    }
    return partial(state.step, people)


def _figures(
    networks: Mapping[tuple[str, str], Network], seconds: Times, peaks: Mapping[Variant, float],
    limits: Mapping[str, float],
) -> dict[Variant, Figures]:  # fmt: skip
    """Return the numbers of each row."""
    rows = {}
    firsts: dict[tuple[str, int], Variant] = {}
    for row, peak in peaks.items():
        network, times = networks[row[:2]], seconds[row]
        gmacs = network.gmacs * (3 if row.task == "train" else 1)
        image = median(times) / row.batch
        first = firsts.setdefault((row.task, row.batch), row)
        to_none, to_first = (
            median(a / b for a, b in zip(seconds[other], times, strict=True))
            for other in (row._replace(prune="none"), first)
        )
        rows[row] = Figures(
            1e3 * image, 2e9 * gmacs / image / limits[row.precision], to_none, to_first,
            gmacs, network.mparams, peak, network.score,
        )  # fmt: skip
    return rows


def _build_networks(
    cfgs: Mapping[str, CfgNode], device: torch.device
) -> dict[tuple[str, str], Network]:
    """Build each network in all its pruning modes: name, mode -> network."""
    networks = {}
    stems = [Path(file).stem for file in cfgs]
    for (file, cfg), stem in zip(cfgs.items(), stems, strict=True):
        prunes = "MODEL.SPARSITY.PRUNE" in model_spec(cfg).export_keys(cfg)
        for mode in prune_modes() if prunes else ("none",):
            changed = changed_cfg(cfg, "MODEL.SPARSITY.PRUNE", mode)
            name = file if stems.count(stem) > 1 else stem
            networks[name, mode] = build_network(changed, device, known_score(changed, stem))
    return networks


def build_network(cfg: CfgNode, device: torch.device, score: float = math.nan) -> Network:
    """Build a network with random weights, always the same ones."""
    torch.manual_seed(0)
    model = build_model(cfg).eval().to(device).to(memory_format=torch.channels_last)
    mparams = sum(weight.numel() for weight in model.parameters()) / 1e6
    return Network(cfg, model, count_macs(model, tuple(cfg.MODEL.IMAGE_SIZE)), mparams, score)


def finer_patches(cfg: CfgNode, patches: Sequence[int] = (4, 2, 1)) -> dict[str, CfgNode]:
    """Return the configuration with smaller and smaller patches, by `N tokens`, the visual ones."""
    if "MODEL.PATCH_SIZE" not in model_spec(cfg).export_keys(cfg):
        raise UserError(f"MODEL.NAME = {cfg.MODEL.NAME!r}: this network has no patches to vary")
    unit = 4 if cfg.MODEL.NAME == "pose_tokenpose_t" else 1
    finer = [changed_cfg(cfg, "MODEL.PATCH_SIZE", [unit * side] * 2) for side in patches]
    return {f"{math.prod(patch_grid(cfg))} tokens": cfg for cfg in finer}


def as_table(rows: Mapping[Variant, Figures], limits: Mapping[str, float]) -> str:
    """Return the machine's limits, a warning if it was not steady, and a Markdown table."""
    rates = (f"{name} {rate / 1e9:.0f}" for name, rate in limits.items() if name != "spread")
    text = f"limits, of the fastest large kernels, in GFLOP/s: {', '.join(rates)}"
    if limits["spread"] > 1.1:
        spread = f"{limits['spread']:.2f} times its shortest time"
        text += f"\nwarning: a kernel took {spread} in the median; repeat this on an idle machine"
    lines = (
        [*map(str, row), *("" if math.isnan(number) else f"{number:.2f}" for number in figures)]
        for row, figures in rows.items()
    )
    return f"{text}\n\n{markdown_table((*Variant._fields, *Figures._fields), lines)}"


def count_table(cfgs: Mapping[str, CfgNode]) -> str:
    """Return parameters and multiply-adds of networks, by YAML file, as a Markdown table."""
    networks = ((file, build_network(cfg, torch.device("cpu"))) for file, cfg in cfgs.items())
    lines = ([file, f"{one.mparams:.2f}", f"{one.gmacs:.2f}"] for file, one in networks)
    return markdown_table(["network", "parameters (M)", "GMACs"], lines)


def known_score(cfg: CfgNode, run: str) -> float:
    """Return the primary score of the run's newest test; nan if none is of this network.

    It must be of this MODEL, DATASET.TEST_SET and TEST, but for runtime and precision, and of the
    weights that the run has now, or of TEST.MODEL_FILE.
    """
    folder = Path(cfg.OUTPUT_DIR) / cfg.DATASET.DATASET / cfg.MODEL.NAME / run
    weights = Path(cfg.TEST.MODEL_FILE or folder / "final_state.pth")
    results = [*folder.glob("results.json"), *folder.glob("test_*/results.json")]
    for path in sorted(results, key=lambda path: path.stat().st_mtime, reverse=True):
        with as_user_error(f"{path}: cannot read the scores; delete it and test again"):
            content = read_json(path)
            is_same = _tested(CfgNode.load_cfg(content["config"])) == _tested(cfg)
            is_same &= Path(content["weights"]).resolve() == weights.resolve() and weights.exists()
            if not (is_same and content["scores"]):
                continue
            if weights.stat().st_mtime <= path.stat().st_mtime:
                return float(content["scores"].get(content["metric"]["primary"], math.nan))
    return math.nan


def _tested(cfg: CfgNode) -> tuple[Any, ...]:
    """What decides about a test's score, apart from the weights."""
    test = {key: value for key, value in cfg.TEST.items() if key not in _NOT_SCORED}
    return cfg.MODEL, cfg.DATASET.DATASET, cfg.DATASET.TEST_SET, test
