"""Score existing predictions: PCKh of a pred.mat against MPII's gt_<set>.mat."""

import argparse

from lib.core.results import write_json
from lib.metrics.pckh import PCKh, load_gt, load_predictions, pckh
from lib.utils.errors import run_command


def main() -> None:
    """Print the table of scores, and write them to --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--gt", required=True, metavar="FILE", help="annotation, such as annot/gt_valid.mat")
    add("--pred", required=True, metavar="FILE", help="pred.mat, as tools/test.py writes it")
    add("--json", metavar="FILE", help="file to write the scores to; default: none")
    arguments = parser.parse_args()

    gt = load_gt(arguments.gt)
    pred = load_predictions(arguments.pred, gt["jnt_missing"].shape[1], gt["jnt_missing"].T == 0)
    scores = pckh(pred, gt)
    print(PCKh().table({arguments.pred: scores}))
    if arguments.json:
        write_json(arguments.json, scores)


if __name__ == "__main__":
    run_command(main)
