"""Draw synthetic people in MPII's layout, to try the whole way without any download."""

import argparse
import os
from pathlib import Path

from lib.core.baseline import mean_pose
from lib.core.evaluate import load_gt, pckh
from lib.dataset.mpii import read_records
from lib.dataset.skeleton import MPII
from lib.dataset.synthetic import make_synthetic
from lib.utils.errors import run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--train", type=int, default=6000, help="people to train on")
    parser.add_argument("--valid", type=int, default=400, help="people to score on")
    parser.add_argument("--image-size", type=int, default=112, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same people")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that draw; 0: this one"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace synthetic people of other settings"
    )
    return parser.parse_args()


def main() -> None:
    """Write the people and say how far the mean pose gets on them."""
    args = parse_arguments()
    counts = {"train": args.train, "valid": args.valid}
    written = make_synthetic(
        args.out, counts, args.seed, args.image_size, args.workers, args.overwrite
    )
    annot = args.out / "annot"
    train, valid = (read_records(annot / f"{name}.json", MPII.num_joints) for name in counts)
    score = pckh(mean_pose(train, valid) + 1, load_gt(annot / "gt_valid.mat"))
    print(
        f"{'wrote' if written else 'found'} {len(train)} + {len(valid)} people in {args.out}; "
        f"the mean pose scores PCKh@0.5 {score['Mean']:.1f}"
    )


if __name__ == "__main__":
    run_command(main)
