"""Where the time of a training step goes."""

import statistics
import time
from collections import defaultdict
from itertools import chain, islice, repeat

import torch
from yacs.config import CfgNode

from lib.analysis.benchmark.measure import synchronize
from lib.core.engine import build_train_state
from lib.dataset import build_dataset, build_train_loader
from lib.models import build_model
from lib.utils.distributed import Distributed
from lib.utils.text import markdown_table

_WARM_UP = 3  # steps that are not counted


def step_table(cfg: CfgNode, distributed: Distributed, steps: int) -> str:
    """Train for a few steps on the real data; return a table of the median ms of each part.

    `data` is the wait for the loader, `other` targets, averages and moves between devices.
    """
    device, dataset = distributed.device, build_dataset(cfg, "train")
    model = build_model(cfg).to(device).to(memory_format=torch.channels_last)
    state = build_train_state(cfg, model, distributed, dataset.skeleton, len(dataset))
    state.train_mode()
    loader = build_train_loader(cfg, dataset)
    parts = ("data", "forward", "loss and backward", "optimizer", "other")
    seconds: dict[str, float] = defaultdict(float)
    current, last = "data", 0.0

    def begin(part: str) -> None:
        nonlocal current, last
        synchronize(device)
        now = time.perf_counter()
        seconds[current] += now - last
        current, last = part, now

    state.model.register_forward_pre_hook(lambda *_: begin("forward"))
    state.model.register_forward_hook(lambda *_: begin("loss and backward"))
    state.optimizer.register_step_pre_hook(lambda *_: begin("optimizer"))
    state.optimizer.register_step_post_hook(lambda *_: begin("other"))
    measured = []
    try:
        begin("data")
        for batch in islice(chain.from_iterable(repeat(loader)), _WARM_UP + steps):
            begin("other")
            state.step(batch)
            begin("data")
            measured.append(dict(seconds))
            seconds.clear()
    finally:
        loader.close()
    total = statistics.median(sum(step.values()) for step in measured[_WARM_UP:])
    rows = []
    for part in parts:
        median = statistics.median(step.get(part, 0.0) for step in measured[_WARM_UP:])
        rows.append([part, f"{1e3 * median:.1f}", f"{median / total:.0%}"])
    return markdown_table(["part", "ms", "of the step"], [*rows, ["all", f"{1e3 * total:.1f}", ""]])
