"""Measure speed: python tools/benchmark.py --cfg FILE [--growth | --data | --decode | --count].

Without a flag: inference and training in every pruning mode or, with --network, of several
networks. The machine should be idle; compare within one run.
"""

import json
import os

import torch

from lib.analysis.benchmark.measure import decode_ms, loader_rates
from lib.analysis.benchmark.rows import (
    as_table,
    count_table,
    growth_plot,
    growth_rows,
    time_rows,
)
from lib.config import load_cfg
from lib.config.check import PRECISIONS, RUNTIMES
from lib.models import check_model
from lib.utils.arguments import comma_list, command_parser, overrides, positive
from lib.utils.distributed import describe, init_distributed
from lib.utils.errors import run_command
from lib.utils.files import write_bytes
from lib.utils.machine import tune
from lib.utils.plot import render


def main() -> None:
    """Print one table, or the figures that a flag selects."""
    parser = command_parser(__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--growth", action="store_true", help="time by number of visual tokens")
    mode.add_argument("--data", action="store_true", help="speed of the data loader")
    mode.add_argument("--decode", action="store_true", help="time from heatmaps to joints")
    mode.add_argument("--count", action="store_true", help="parameters and multiply-adds")
    add, sizes = parser.add_argument, comma_list(positive)
    for name, parse, values, about, default in (
        ("batch", sizes, ["N", "..."], "batch sizes of inference", "1,16"),
        ("train-batch", sizes, ["N", "..."], "batch sizes of training", "8"),
        ("precision", comma_list(str, PRECISIONS), PRECISIONS, "of inference", "fp32,bf16"),
        ("runtime", comma_list(str, RUNTIMES), RUNTIMES, "of inference", "eager"),
    ):
        text = f"{about}; default: {default}"
        add(f"--{name}", type=parse, default=default, metavar=",".join(values), help=text)
    about = "measure these configurations too, each in its own pruning mode"
    add("--network", type=comma_list(str), default=[], metavar="FILE,...", help=about)
    add("--no-training", action="store_true", help="measure inference only")
    add("--rounds", type=positive, default=9, metavar="N", help="runs of each task; default: 9")
    add("--plot", metavar="FILE", help="with --growth: also draw it to this PNG file")
    arguments = parser.parse_intermixed_args()
    if arguments.plot and not arguments.growth:
        parser.error("--plot needs --growth")
    if arguments.network and (arguments.growth or arguments.data or arguments.decode):
        parser.error("--network goes with --count or without a flag")
    networks = {
        file: check_model(load_cfg(file, overrides(arguments)))
        for file in (arguments.cfg, *arguments.network)
    }
    cfg = networks[arguments.cfg]
    if arguments.count:
        print(count_table(networks))
        return
    tune()
    distributed = init_distributed(cfg.GPUS)
    device, rounds = distributed.device, arguments.rounds
    load = os.getloadavg()[0]
    print(f"device {describe(distributed)}, torch {torch.__version__}, load {load:.2f}")
    if arguments.data:
        print(json.dumps(loader_rates(cfg), indent=2))
    elif arguments.decode:
        print(f"decode: {decode_ms(cfg, device):.3f} ms/image")
    elif arguments.growth:
        growth = growth_rows(cfg, device, runtimes=arguments.runtime, rounds=rounds)
        for count, rows in growth.items():
            print(f"\n{count} visual tokens\n{as_table(rows)}", flush=True)
        if arguments.plot:
            write_bytes(arguments.plot, render(growth_plot(growth)))
    else:
        several = networks if arguments.network else None
        rows = time_rows(
            cfg, device, "infer", networks=several, precisions=arguments.precision,
            batches=arguments.batch, runtimes=arguments.runtime, rounds=rounds,
        )  # fmt: skip
        if not arguments.no_training:
            rows += time_rows(
                cfg, device, "train", networks=several, precisions=arguments.precision,
                batches=arguments.train_batch, rounds=rounds,
            )  # fmt: skip
        print(as_table(rows))


if __name__ == "__main__":
    run_command(main)
