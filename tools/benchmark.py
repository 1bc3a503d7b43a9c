"""Measure speed: python tools/benchmark.py --cfg FILE [FILE ...] [--count | --data | --step ...].

Without a flag: inference and training in every pruning mode; of several configurations inference
alone, side by side. The machine should be idle; compare within one run.
"""

import json
import os
from itertools import takewhile

import torch

from lib.analysis.benchmark.measure import decode_ms, loader_rates
from lib.analysis.benchmark.plots import growth_plot, networks_plot
from lib.analysis.benchmark.rows import as_table, count_table, finer_patches, time_rows
from lib.analysis.benchmark.steps import step_table
from lib.config import load_cfg
from lib.config.check import PRECISIONS, RUNTIMES
from lib.models import check_model
from lib.utils.arguments import comma_list, command_parser, overrides, positive
from lib.utils.distributed import describe, init_distributed
from lib.utils.errors import run_command
from lib.utils.files import write_bytes
from lib.utils.machine import busy_warning, processor, tune
from lib.utils.plot import render

_MODES = {
    "growth": "time by number of visual tokens",
    "data": "speed of the data loader",
    "decode": "time from heatmaps to joints",
    "count": "parameters and multiply-adds",
    "step": "where a training step's time goes",
}


def main() -> None:
    """Print one table, or the figures that a flag selects."""
    parser = command_parser(__doc__)
    group = parser.add_mutually_exclusive_group()
    for name, text in _MODES.items():
        group.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    add, sizes = parser.add_argument, comma_list(positive)
    for name, parse, values, about, default in (
        ("batch", sizes, ["N", "..."], "batch sizes of inference", "1,16"),
        ("train-batch", sizes, ["N", "..."], "batch sizes of training", "8"),
        ("precision", comma_list(str, PRECISIONS), PRECISIONS, "of inference", "fp32,bf16"),
        ("runtime", comma_list(str, RUNTIMES), RUNTIMES, "of inference", "eager"),
    ):
        text = f"{about}; default: {default}"
        add(f"--{name}", type=parse, default=default, metavar=",".join(values), help=text)
    add("--no-training", action="store_true", help="measure inference only")
    add("--rounds", type=positive, default=9, metavar="N", help="runs of each task; default: 9")
    add("--plot", metavar="FILE", help="PNG file of the table, or of --growth")
    arguments = parser.parse_intermixed_args()
    more = list(takewhile(lambda word: word.endswith((".yaml", ".yml")), arguments.opts))
    files = [arguments.cfg, *more]
    del arguments.opts[: len(more)]
    mode = arguments.mode
    if len(files) > 1 and mode not in (None, "count"):
        parser.error("several configurations take no flag but --count")
    if arguments.plot and mode not in (None, "growth"):
        parser.error("--plot is of the table or of --growth")
    cfgs = {file: check_model(load_cfg(file, overrides(arguments))) for file in files}
    cfg = cfgs[arguments.cfg]
    if mode == "count":
        print(count_table(cfgs))
        return
    tune()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler prints its state
    distributed = init_distributed(cfg.GPUS)
    device, rounds = distributed.device, arguments.rounds
    print(f"device {describe(distributed)}, torch {torch.__version__}")
    print(processor(), busy_warning(), sep="\n", flush=True)
    if mode == "data":
        print(json.dumps(loader_rates(cfg), indent=2))
    elif mode == "decode":
        print(f"decode: {decode_ms(cfg, device):.3f} ms/image")
    elif mode == "step":
        print(step_table(cfg, distributed, steps=3 * rounds))
    else:
        batches, precisions = {"infer": arguments.batch}, arguments.precision
        if mode == "growth":
            cfgs, batches, precisions = finer_patches(cfg), {"infer": [1]}, ["fp32"]
        elif len(files) == 1 and not arguments.no_training:
            batches["train"] = arguments.train_batch
        rows, limits = time_rows(
            cfgs, device, batches, precisions=precisions, runtimes=arguments.runtime, rounds=rounds
        )
        print(as_table(rows, limits))
        if arguments.plot:
            plot = growth_plot if mode == "growth" else networks_plot
            write_bytes(arguments.plot, render(plot(rows)))


if __name__ == "__main__":
    run_command(main)
