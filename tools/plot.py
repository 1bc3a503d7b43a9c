"""Draw runs: python tools/plot.py RUN [RUN ...] [--out FOLDER|FILE].

RUN is a run's folder, as output/<dataset>/<model>/<run>. Draws training.png, pckh.png and
errors.png: the way of the training, PCKh against threshold, errors by part of the body.
"""

import argparse
import os
import sys
from pathlib import Path

from lib.core.runs.plots import draw_runs
from lib.core.runs.read import read_runs
from lib.utils.errors import UserError, run_command
from lib.utils.plot import save_figures


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER|FILE",
        help="where to draw; a .pdf gets a page a figure, a .png all below each other; else: the "
        "run's folder or, of several, the deepest that holds them all",
    )
    parser.add_argument("--dataDir", dest="data_dir", metavar="DIR", help="replaces DATA_DIR")
    parser.add_argument("--logDir", dest="log_dir", metavar="DIR", help="replaces LOG_DIR")
    return parser.parse_args()


def main() -> None:
    """Draw what there is, and say what there is not."""
    arguments = parse_arguments()
    runs, faults = read_runs(arguments.runs, arguments.data_dir, arguments.log_dir)
    for fault in [*faults, *(fault for run in runs for fault in run.faults)]:
        print(f"note: {fault}", file=sys.stderr)
    figures = draw_runs(runs)
    if not figures:
        raise UserError("nothing could be drawn of " + " ".join(map(str, arguments.runs)))
    out = arguments.out or Path(os.path.commonpath([run.folder.resolve() for run in runs]))
    for path in save_figures(figures, out):
        print(path)


if __name__ == "__main__":
    run_command(main)
