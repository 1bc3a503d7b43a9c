"""Measure speed: python tools/benchmark.py --cfg FILE [--growth | --data | --decode | --watch].

Without a flag: inference and training of the three ways of pruning. Check that the machine is
quiet; compare within one run.
"""

import argparse
import json
import os
from pathlib import Path

from lib.config import load_cfg
from lib.core.benchmark import measure, plot
from lib.core.benchmark.data import decode_ms, loader_rates
from lib.core.benchmark.training import watching_cost
from lib.core.results import write_json
from lib.core.runtime import PRECISIONS, RUNTIMES
from lib.utils.arguments import command_parser, one_of, overrides, positive, several
from lib.utils.distributed import join_world
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
    instead.add_argument("--watch", action="store_true", help="what a training's safety costs")
    parser.add_argument("--batch", type=several(positive), default=[1, 16], metavar="N[,N ...]")
    parser.add_argument("--train-batch", type=several(positive), default=[8], metavar="N[,N ...]")
    for name, known, default in (
        ("precision", PRECISIONS, ["fp32", "bf16"]),
        ("runtime", RUNTIMES, ["eager"]),
    ):
        kind = several(one_of(known))
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=",".join(known))
    parser.add_argument("--no-training", action="store_true", help="inference only")
    parser.add_argument("--rounds", type=positive, default=9, help="runs of each variant")
    parser.add_argument("--plot", help="with --growth: also draw it to this picture")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_intermixed_args()
    if arguments.plot and not arguments.growth:
        parser.error("--plot needs --growth")
    return arguments


def main() -> None:
    """Print one table, or the figure that a flag asks for."""
    arguments = parse_arguments()
    cfg = load_cfg(arguments.cfg, overrides(arguments))
    tune()
    device = join_world(cfg.GPUS).device
    machine = measure.describe_machine(device) | {"load": f"{os.getloadavg()[0]:.2f}"}
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    content: dict = {"machine": machine}
    if arguments.data:
        content["loader"] = loader_rates(cfg)
        print(json.dumps(content["loader"], indent=2))
    elif arguments.watch:
        content["training"] = watching_cost(cfg, device, rounds=arguments.rounds)
        print(json.dumps(content["training"], indent=2))
    elif arguments.decode:
        content["decode ms/image"] = decode_ms(cfg, device)
        print(f"decode: {content['decode ms/image']:.3f} ms/image")
    elif arguments.growth:
        rows = measure.growth_rows(cfg, device, runtimes=arguments.runtime, rounds=arguments.rounds)
        for tokens, part in rows.items():
            print(f"\n{tokens} visual tokens\n{measure.as_table(part)}", flush=True)
        if arguments.plot:
            save_image(arguments.plot, plot.growth_picture(rows))
        content["growth"] = {str(n): measure.as_json(part) for n, part in rows.items()}
    else:
        rows = measure.inference_rows(
            cfg, device, precisions=arguments.precision, batches=arguments.batch,
            runtimes=arguments.runtime, rounds=arguments.rounds,
        )  # fmt: skip
        if not arguments.no_training:
            rows += measure.training_rows(
                cfg, device, precisions=arguments.precision, batches=arguments.train_batch,
                rounds=arguments.rounds,
            )  # fmt: skip
        print(measure.as_table(rows))
        content["rows"] = measure.as_json(rows)
    if arguments.json:
        write_json(Path(arguments.json), content)


if __name__ == "__main__":
    run_command(main)
