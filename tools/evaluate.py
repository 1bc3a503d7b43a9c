"""Score existing predictions: PCKh of a pred.mat by MPII's gt_<set>.mat, AP of COCO's results."""

import argparse

from lib.core.results import write_json
from lib.dataset.skeleton import COCO
from lib.metrics.oks import score_results
from lib.metrics.pckh import PCKh, load_gt, load_predictions, pckh
from lib.utils.errors import run_command


def main() -> None:
    """Print the table of scores, and write them to --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--gt", required=True, metavar="FILE", help="gt_<set>.mat or person_keypoints_<set>.json")
    add("--pred", required=True, metavar="FILE", help="predictions, as tools/test.py writes")
    add("--json", metavar="FILE", help="file to write the scores to; default: none")
    arguments = parser.parse_args()

    if arguments.gt.endswith(".json"):
        scores = score_results(arguments.gt, arguments.pred, COCO)
    else:
        gt = load_gt(arguments.gt)
        missing = gt["jnt_missing"].T
        scores = pckh(load_predictions(arguments.pred, len(missing), missing == 0), gt)
    print(PCKh().table({arguments.pred: scores}))
    if arguments.json:
        write_json(arguments.json, scores)


if __name__ == "__main__":
    run_command(main)
