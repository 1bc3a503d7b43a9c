"""Plot runs: python tools/plot.py RUN [RUN ...] [--worst N] [--out FOLDER] [--format pdf].

RUN is a run's folder, such as output/<dataset>/<model>/<run>. Draws training.png (history),
accuracy.png (percent of joints within a threshold) and errors.png (histograms), by group of joints.
"""

import argparse
import os
import sys
from pathlib import Path

from lib.analysis.runs.plots import draw_runs
from lib.analysis.runs.read import read_runs
from lib.analysis.runs.worst import worst_people
from lib.utils.arguments import positive
from lib.utils.drawing import save_image
from lib.utils.errors import UserError, run_command
from lib.utils.files import write_bytes
from lib.utils.plot import render

MAX_WORST = 500  # people; JPEG holds images of up to 65,535 pixels a side


def main() -> None:
    """Draw what can be drawn, and print what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    add("--out", type=Path, metavar="FOLDER",
        help="default: the run's folder, or the deepest one that holds all runs")  # fmt: skip
    add("--worst", type=positive, metavar="N",
        help="list, and draw to worst.jpg, the N test people of largest error")  # fmt: skip
    add("--format", choices=("png", "pdf"), default="png", help="default: png")
    add("--dataDir", dest="data_dir", metavar="DIR", help="replaces DATA_DIR")
    arguments = parser.parse_args()
    if arguments.worst and (len(arguments.runs) > 1 or arguments.worst > MAX_WORST):
        parser.error(f"--worst is for one run, and for at most {MAX_WORST} people")
    runs, notes = read_runs(arguments.runs, arguments.data_dir)
    for note in [*notes, *(note for run in runs for note in run.notes)]:
        print(f"note: {note}", file=sys.stderr)
    figures = draw_runs(runs)
    if not figures:
        raise UserError("nothing can be drawn of " + " ".join(map(str, arguments.runs)))
    out = arguments.out or Path(os.path.commonpath([run.folder.resolve() for run in runs]))
    if arguments.worst:
        (run,) = runs
        if run.metric is None or run.evaluation is None:
            raise UserError(f"--worst needs the predictions of a test: {run.notes[-1]}")
        sheet, table = worst_people(run.evaluation, run.metric, arguments.worst)
        save_image(out / "worst.jpg", sheet)
        print(f"{table}\n{out / 'worst.jpg'}")
    for name, figure in figures.items():
        path = out / f"{name}.{arguments.format}"
        write_bytes(path, render(figure, arguments.format))
        print(path)


if __name__ == "__main__":
    run_command(main)
