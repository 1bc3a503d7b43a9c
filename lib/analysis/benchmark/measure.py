"""Time and memory of tasks, of the loader and of decoding, and the machine's limit.

Tasks are interleaved, A B C A B C …, and medians are compared: a drift of the machine's speed
affects all of them alike. The limit is the rate of the fastest large kernel in the same run.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from yacs.config import CfgNode

from lib.dataset import build_dataset, build_skeleton, build_train_loader
from lib.dataset.heatmap import decode
from lib.inference.pipeline import build_decoding

Key = TypeVar("Key")
Task = Callable[[], object]
WARM_UP = 2  # rounds that are not counted
LASTING = 0.02  # seconds: the first run of a shorter task finds a cold cache


def interleave(
    tasks: Mapping[Key, Task], rounds: int, device: torch.device
) -> dict[Key, list[float]]:
    """Run the tasks in turn, `rounds` times after warming up; return the seconds of each run.

    A task shorter than LASTING is repeated in its turn, and its mean returned.
    """
    times: dict[Key, list[float]] = {name: [] for name in tasks}
    repeats = dict.fromkeys(tasks, 1)
    for number in range(WARM_UP + rounds):
        for name, task in tasks.items():
            synchronize(device)
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                task()
            synchronize(device)
            seconds = (time.perf_counter() - begin) / repeats[name]
            if number < WARM_UP:
                repeats[name] = max(1, math.ceil(LASTING / max(seconds, 1e-6)))
            else:
                times[name].append(seconds)
    return times


def limit_kernels(device: torch.device, dtype: torch.dtype | None) -> dict[Task, float]:
    """Large kernels that reach the machine's limit -> their number of operations.

    Those of int8 (`dtype` None) are OpenVINO's on a CPU; none if it is not installed.
    """
    if dtype is None:
        return _int8_kernel() if device.type == "cpu" else {}
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(16, 256, 64, 64, device=device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 1, 1, device=device, dtype=dtype)
    return {lambda: a @ b: 2.0 * side**3, lambda: F.conv2d(x, weight): 2.0 * x.numel() * 256}


def _int8_kernel(side: int = 2048) -> dict[Task, float]:
    """A matrix product in int8, with the conversion of its input."""
    try:
        import openvino
        from openvino import opset13 as ops
    except ImportError:
        return {}
    generator = np.random.default_rng(0)
    image = generator.standard_normal((side, side), dtype=np.float32)

    def quantized(x: Any) -> Any:
        low, high = np.float32(-1.27), np.float32(1.27)
        return ops.fake_quantize(x, low, high, low, high, 255)

    x = ops.parameter([side, side], np.float32)
    product = ops.matmul(quantized(x), quantized(ops.constant(image)), False, False)
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(openvino.Model([product], [x]), "CPU", settings)
    return {lambda: compiled(image, share_inputs=True, share_outputs=True): 2.0 * side**3}


def peak_memory(task: Task, device: torch.device) -> float:
    """Return the peak memory, in MB (1e6), of the tensors that one run allocates."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        task()
    assert recorded.profiler is not None
    allocated = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak / 1e6


def synchronize(device: torch.device) -> None:
    """Wait for the work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def loader_rates(cfg: CfgNode, samples: int = 400, rounds: int = 5) -> dict[str, float]:
    """Return the samples/s of the training loader with one worker, and of decoding alone.

    `bare` reads each file and decodes its JPEG at full size, in one thread. The set's people are
    repeated up to about `samples`. `ratio` is `loader` over `bare`.
    """
    cfg = changed_cfg(cfg, "WORKERS", 1)
    dataset = build_dataset(cfg, "train")
    repeats = max(1, samples // len(dataset))
    people = replace(dataset.annotation, records=[*dataset.records] * repeats)
    dataset = replace(dataset, annotation=people)
    loader = build_train_loader(cfg, dataset)
    cv2.setNumThreads(1)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

    def bare() -> None:
        for record in dataset.records:
            cv2.imdecode(np.frombuffer(dataset.images.read(record.image), np.uint8), flags)

    def load() -> None:
        for _ in loader:
            pass

    times = interleave({"bare": bare, "loader": load}, rounds, torch.device("cpu"))
    rates = {name: len(dataset) / statistics.median(seconds) for name, seconds in times.items()}
    return rates | {"ratio": rates["loader"] / rates["bare"]}


def decode_ms(cfg: CfgNode, device: torch.device, batch: int = 16, rounds: int = 31) -> float:
    """Return the milliseconds per image of decoding heatmaps as configured by TEST."""
    width, height = cfg.MODEL.HEATMAP_SIZE
    heatmaps = torch.rand(batch, cfg.MODEL.NUM_JOINTS, height, width, device=device)
    decoding = build_decoding(cfg, build_skeleton(cfg))
    task = partial(decode, heatmaps, decoding.blur_kernel, decoding.refine)
    (times,) = interleave({"decode": task}, rounds, device).values()
    return 1e3 * statistics.median(times) / batch


def changed_cfg(cfg: CfgNode, *pairs: Any) -> CfgNode:
    """Return a copy of the configuration with other values: key, value, key, value, …."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(pairs))
    return cfg
