"""Draw synthetic people in MPII's layout, to try everything without a download."""

import argparse
import os
from pathlib import Path

from lib.dataset.mpii import gt_path_of, read_mpii
from lib.dataset.skeleton import MPII
from lib.dataset.synthetic.people import make_synthetic
from lib.metrics.mean_pose import mean_pose
from lib.metrics.pckh import load_gt, pckh
from lib.utils.errors import run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--train", type=int, default=6000, help="people to train on")
    parser.add_argument("--valid", type=int, default=400, help="people to validate on")
    parser.add_argument("--image-size", type=int, default=112, help="side of the images in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same people")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="worker processes; 0: none"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace synthetic people of other settings"
    )
    return parser.parse_args()


def main() -> None:
    """Write the people and print the score of the mean pose."""
    args = parse_arguments()
    counts = {"train": args.train, "valid": args.valid}
    written = make_synthetic(
        args.out, counts, args.seed, args.image_size, args.workers, args.overwrite
    )
    train, valid = (read_mpii(args.out, name, MPII) for name in counts)
    joints = mean_pose(train.records, valid.records).joints
    score = pckh(joints + 1, load_gt(gt_path_of(args.out, "valid")))
    print(
        f"{'wrote' if written else 'kept'} {args.train} + {args.valid} people in {args.out}; "
        f"the mean pose scores PCKh@0.5 {score['Mean']:.1f}"
    )


if __name__ == "__main__":
    run_command(main)
