"""Measure speed: python tools/benchmark.py --cfg FILE [FILE ...] [--count | --data | --step ...].

Without a flag: inference and training in every pruning mode; of several configurations inference
side by side. The machine should be idle; compare within one run.
"""

import json
from itertools import takewhile

import torch

from lib.analysis.benchmark.measure import decode_ms, loader_rates
from lib.analysis.benchmark.networks import (
    as_networks_table,
    count_table,
    network_rows,
    networks_plot,
)
from lib.analysis.benchmark.rows import as_table, growth_plot, growth_rows, time_rows
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


def main() -> None:
    """Print one table, or the figures that a flag selects."""
    parser = command_parser(__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--growth", action="store_true", help="time by number of visual tokens")
    mode.add_argument("--data", action="store_true", help="speed of the data loader")
    mode.add_argument("--decode", action="store_true", help="time from heatmaps to joints")
    mode.add_argument("--count", action="store_true", help="parameters and multiply-adds")
    mode.add_argument("--step", action="store_true", help="where a training step's time goes")
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
    add("--plot", metavar="FILE", help="PNG file of --growth or of several networks")
    arguments = parser.parse_intermixed_args()
    files = [
        arguments.cfg,
        *takewhile(lambda word: word.endswith((".yaml", ".yml")), arguments.opts),
    ]
    del arguments.opts[: len(files) - 1]
    flags = (arguments.growth, arguments.data, arguments.decode, arguments.step)
    if len(files) > 1 and any(flags):
        parser.error("several configurations take no flag but --count")
    if arguments.plot and not (arguments.growth or len(files) > 1):
        parser.error("--plot needs --growth or several configurations")
    cfgs = {file: check_model(load_cfg(file, overrides(arguments))) for file in files}
    cfg = cfgs[arguments.cfg]
    if arguments.count:
        print(count_table(cfgs))
        return
    tune()
    distributed = init_distributed(cfg.GPUS)
    device, rounds = distributed.device, arguments.rounds
    print(f"device {describe(distributed)}, torch {torch.__version__}")
    print(processor(), busy_warning(), sep="\n", flush=True)
    if arguments.data:
        print(json.dumps(loader_rates(cfg), indent=2))
    elif arguments.decode:
        print(f"decode: {decode_ms(cfg, device):.3f} ms/image")
    elif arguments.step:
        print(step_table(cfg, distributed, steps=3 * rounds))
    elif len(files) > 1:
        several, limits = network_rows(
            cfgs, device, precisions=arguments.precision,
            batches=arguments.batch, runtimes=arguments.runtime, rounds=rounds,
        )  # fmt: skip
        print(as_networks_table(several, limits))
        if arguments.plot:
            write_bytes(arguments.plot, render(networks_plot(several)))
    elif arguments.growth:
        growth = growth_rows(cfg, device, runtimes=arguments.runtime, rounds=rounds)
        for count, rows in growth.items():
            print(f"\n{count} visual tokens\n{as_table(rows)}", flush=True)
        if arguments.plot:
            write_bytes(arguments.plot, render(growth_plot(growth)))
    else:
        rows = time_rows(
            cfg, device, "infer", precisions=arguments.precision,
            batches=arguments.batch, runtimes=arguments.runtime, rounds=rounds,
        )  # fmt: skip
        if not arguments.no_training:
            rows += time_rows(
                cfg, device, "train", precisions=arguments.precision,
                batches=arguments.train_batch, rounds=rounds,
            )  # fmt: skip
        print(as_table(rows))


if __name__ == "__main__":
    run_command(main)
