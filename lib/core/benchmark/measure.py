"""Time and work of the network's variants, measured so that a drifting machine does not lie.

Variants are timed in turn, A B C A B C …, and medians are compared. Work is counted on the plain
path, attention included; the machine's limit is what its fastest large kernel reaches in the same
run.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from yacs.config import CfgNode

from lib.config.check import check
from lib.core.inference import Runner, normalise
from lib.core.optimizer import build_optimizer
from lib.core.runtime import RUNTIMES, TYPES, autocast, build_runner
from lib.models import build_model
from lib.utils.text import markdown_table

PRUNE_MODES = ("none", "connection", "token")


@dataclass(frozen=True)
class Row:
    """One measured variant; times are medians."""

    task: str
    prune: str
    precision: str
    batch: int
    runtime: str
    ms_per_image: float
    images_per_s: float
    gmacs: float  # executed, of one image
    parameters: int
    peak_mb: float | None  # of tensors beyond weights; None where the runtime hides it
    of_limit: float  # share of the limit that the work in that time is
    limit_gflops: float  # the highest rate of a large kernel in the same run
    to_none: float | None = None  # time of the `none` row over this one's


def variant(cfg: CfgNode, prune: str, **changes: Any) -> CfgNode:
    """Return `cfg` with another way of pruning, and other keys of MODEL by name."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.SPARSITY.PRUNE = prune
    for key, value in changes.items():
        cfg.MODEL[key] = value
    check(cfg)
    cfg.freeze()
    return cfg


def inference_rows(
    cfg: CfgNode,
    device: torch.device,
    *,
    prune: Sequence[str] = PRUNE_MODES,
    precisions: Sequence[str] = ("fp32", "bf16"),
    batches: Sequence[int] = (1, 16),
    runtimes: Sequence[str] = ("eager",),
    rounds: int = 9,
) -> list[Row]:
    """Time every combination that exists; those of one batch and precision take turns."""
    models = {mode: _model(variant(cfg, mode), device) for mode in prune}
    size = tuple(cfg.MODEL.IMAGE_SIZE)
    macs = {mode: count_macs(model, size) for mode, model in models.items()}
    rows = []
    for batch in batches:
        crops = _crops(batch, size, device)
        for precision in precisions:
            tasks = {
                (runtime, mode): _infer(build_runner(models[mode], runtime, precision, size), crops)
                for runtime in runtimes
                for mode in prune
                if precision in RUNTIMES[runtime]
            }
            times, limit = _times_and_limit(tasks, device, precision, rounds)
            for (runtime, mode), seconds in times.items():
                hidden = runtime in ("openvino", "onnx")
                peak = None if hidden else peak_memory(tasks[runtime, mode], device)
                rows.append(
                    _row("infer", mode, precision, batch, runtime, seconds, macs[mode],
                         models[mode], peak, limit, times.get((runtime, "none")))
                )  # fmt: skip
    return rows


def training_rows(
    cfg: CfgNode,
    device: torch.device,
    *,
    prune: Sequence[str] = PRUNE_MODES,
    precisions: Sequence[str] = ("fp32", "bf16"),
    batches: Sequence[int] = (8,),
    rounds: int = 7,
) -> list[Row]:
    """Time a training step: forward, backward, optimizer. Its work is three times the forward's."""
    models = {mode: _model(variant(cfg, mode), device) for mode in prune}
    size = tuple(cfg.MODEL.IMAGE_SIZE)
    macs = {mode: 3 * count_macs(model, size) for mode, model in models.items()}
    rows = []
    for batch in batches:
        images = normalise(_crops(batch, size, device))
        for precision in precisions:
            tasks = {mode: _train(cfg, models[mode].train(), images, precision) for mode in prune}
            times, limit = _times_and_limit(tasks, device, precision, rounds)
            for mode, seconds in times.items():
                peak = peak_memory(tasks[mode], device)
                rows.append(
                    _row("train", mode, precision, batch, "eager", seconds, macs[mode],
                         models[mode], peak, limit, times.get("none"))
                )  # fmt: skip
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
    rows = {}
    for patch in patches:
        finer = variant(cfg, "none", PATCH_SIZE=[patch, patch])
        width, height = (length // 4 // patch for length in finer.MODEL.IMAGE_SIZE)
        rows[width * height] = inference_rows(
            finer, device, precisions=("fp32",), batches=(1,), runtimes=runtimes, rounds=rounds
        )
    return rows


def interleave(
    tasks: Mapping[Any, Callable[[], object]], rounds: int, device: torch.device
) -> dict[Any, list[float]]:
    """Run the tasks in turn, `rounds` times after two for warming up; seconds of each run."""
    times: dict[Any, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 2):
        for name, task in tasks.items():
            _wait(device)
            begin = time.perf_counter()
            task()
            _wait(device)
            if number >= 2:
                times[name].append(time.perf_counter() - begin)
    return times


def count_macs(model: nn.Module, size: tuple[int, int]) -> float:
    """Multiply-adds of one image in evaluation, in 1e9, counted on the plain path."""
    training = model.training
    images = normalise(_crops(1, size, next(model.parameters()).device))
    with (
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):
        model.eval()(images)
    model.train(training)
    return counter.get_total_flops() / 2e9


def limit_tasks(device: torch.device, precision: str) -> dict[str, tuple[Callable, float]]:
    """Large kernels that show the machine's limit: name -> (task, operations of a run)."""
    kind = TYPES[precision]
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    x = torch.randn(16, 256, 64, 64, device=device, dtype=kind)
    x = x.to(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 1, 1, device=device, dtype=kind)
    return {
        "matrix product": (lambda: a @ b, 2.0 * side**3),
        "1×1 convolution": (lambda: F.conv2d(x, w), 2.0 * x.numel() * 256),
    }


def peak_memory(task: Callable[[], object], device: torch.device) -> float:
    """Most memory that tensors of one run hold at a time, in MB (1e6)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        task()
    held = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 1e6


def describe_machine(device: torch.device) -> dict[str, str]:
    """Say what was measured on and with."""
    cpu = platform.processor() or platform.machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return {
        "device": f"{device.type} ({name})",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }


def as_table(rows: Iterable[Row]) -> str:
    """Lay rows out as a Markdown table."""
    columns = (
        "task", "prune", "precision", "batch", "runtime", "ms/image", "images/s", "GMACs",
        "Mparams", "peak MB", "of limit", "limit GFLOP/s", "× none",
    )  # fmt: skip
    lines = [
        (
            row.task, row.prune, row.precision, str(row.batch), row.runtime,
            f"{row.ms_per_image:.2f}", f"{row.images_per_s:.1f}", f"{row.gmacs:.2f}",
            f"{row.parameters / 1e6:.2f}",
            "–" if row.peak_mb is None else f"{row.peak_mb:.0f}",
            f"{row.of_limit:.2f}", f"{row.limit_gflops:.0f}",
            "–" if row.to_none is None else f"{row.to_none:.2f}",
        )
        for row in rows
    ]  # fmt: skip
    return markdown_table(columns, lines)


def as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as plain dictionaries."""
    return [asdict(row) for row in rows]


def _times_and_limit(
    tasks: Mapping[Any, Callable[[], object]], device: torch.device, precision: str, rounds: int
) -> tuple[dict[Any, float], float]:
    """Median seconds of each task, and the highest rate of a large kernel beside them."""
    kernels = limit_tasks(device, precision)
    together = dict(tasks) | {("limit", name): task for name, (task, _) in kernels.items()}
    times = interleave(together, rounds, device)
    limit = max(work / min(times["limit", name]) for name, (_, work) in kernels.items())
    return {name: statistics.median(times[name]) for name in tasks}, limit


def _row(
    task: str,
    prune: str,
    precision: str,
    batch: int,
    runtime: str,
    seconds: float,
    gmacs: float,
    model: nn.Module,
    peak: float | None,
    limit: float,
    dense: float | None,
) -> Row:
    return Row(
        task,
        prune,
        precision,
        batch,
        runtime,
        ms_per_image=1e3 * seconds / batch,
        images_per_s=batch / seconds,
        gmacs=gmacs,
        parameters=sum(weight.numel() for weight in model.parameters()),
        peak_mb=peak,
        of_limit=2e9 * gmacs * batch / seconds / limit,
        limit_gflops=limit / 1e9,
        to_none=None if dense is None else dense / seconds,
    )


def _model(cfg: CfgNode, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return build_model(cfg).eval().to(device, memory_format=torch.channels_last)


def _crops(batch: int, size: tuple[int, int], device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, size[1], size[0], 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)


def _infer(runner: Runner, crops: Tensor) -> Callable[[], Tensor]:
    def task() -> Tensor:
        with torch.inference_mode():
            return runner(crops)

    return task


def _train(cfg: CfgNode, model: nn.Module, images: Tensor, precision: str) -> Callable[[], None]:
    optimizer = build_optimizer(cfg, model)

    def task() -> None:
        with autocast(images.device, precision):
            loss = model(images).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return task


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
