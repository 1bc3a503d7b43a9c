"""Measure speed: python tools/benchmark.py --cfg FILE [--growth | --data | --decode].

Without a flag: inference and training in every pruning mode. The machine should be idle; compare
within one run.
"""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from lib.analysis.benchmark.data import decode_ms, loader_rates
from lib.analysis.benchmark.rows import as_table, growth_plot, growth_rows, time_rows
from lib.config import load_cfg
from lib.core.results import write_json
from lib.inference.precision import PRECISIONS
from lib.inference.runtimes import RUNTIMES
from lib.models import check_model
from lib.utils.arguments import command_parser, one_of, overrides, positive, several
from lib.utils.distributed import describe, init_distributed
from lib.utils.drawing import save_image
from lib.utils.errors import run_command
from lib.utils.machine import tune


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--growth", action="store_true", help="time against visual tokens")
    instead.add_argument("--data", action="store_true", help="the loader against bare decoding")
    instead.add_argument("--decode", action="store_true", help="heatmaps to joints")
    parser.add_argument("--batch", type=several(positive), default=[1, 16], metavar="N[,N ...]")
    parser.add_argument("--train-batch", type=several(positive), default=[8], metavar="N[,N ...]")
    for name, known, default in (
        ("precision", PRECISIONS, ["fp32", "bf16"]),
        ("runtime", tuple(RUNTIMES), ["eager"]),
    ):
        kind = several(one_of(known))
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=",".join(known))
    parser.add_argument("--no-training", action="store_true", help="inference only")
    parser.add_argument("--rounds", type=positive, default=9, help="runs of each task")
    parser.add_argument("--plot", metavar="FILE", help="with --growth: also draw it to this image")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    arguments = parser.parse_intermixed_args()
    if arguments.plot and not arguments.growth:
        parser.error("--plot needs --growth")
    return arguments


def main() -> None:
    """Print one table, or the figures that a flag selects."""
    arguments = parse_arguments()
    cfg = check_model(load_cfg(arguments.cfg, overrides(arguments)))
    tune()
    distributed = init_distributed(cfg.GPUS)
    device, rounds = distributed.device, arguments.rounds
    machine = {
        "device": describe(distributed),
        "torch": torch.__version__,
        "load": f"{os.getloadavg()[0]:.2f}",
    }
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    content: dict = {"machine": machine}
    if arguments.data:
        content["loader"] = loader_rates(cfg)
        print(json.dumps(content["loader"], indent=2))
    elif arguments.decode:
        content["decode ms/image"] = decode_ms(cfg, device)
        print(f"decode: {content['decode ms/image']:.3f} ms/image")
    elif arguments.growth:
        growth = growth_rows(cfg, device, runtimes=arguments.runtime, rounds=rounds)
        for count, rows in growth.items():
            print(f"\n{count} visual tokens\n{as_table(rows)}", flush=True)
        if arguments.plot:
            save_image(arguments.plot, growth_plot(growth))
        content["growth"] = {str(count): list(map(asdict, rows)) for count, rows in growth.items()}
    else:
        rows = time_rows(
            cfg, device, "infer", precisions=arguments.precision, batches=arguments.batch,
            runtimes=arguments.runtime, rounds=rounds,
        )  # fmt: skip
        if not arguments.no_training:
            rows += time_rows(
                cfg, device, "train", precisions=arguments.precision,
                batches=arguments.train_batch, rounds=rounds,
            )  # fmt: skip
        print(as_table(rows))
        content["rows"] = list(map(asdict, rows))
    if arguments.json:
        write_json(Path(arguments.json), content)


if __name__ == "__main__":
    run_command(main)
