"""Draw synthetic people in MPII's layout, to try everything without a download."""

import argparse
import os
from pathlib import Path

from lib.dataset.synthetic.people import make_synthetic
from lib.utils.errors import run_command


def main() -> None:
    """Write the people to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the data set")
    add("--train", type=int, default=6000, help="people to train on")
    add("--valid", type=int, default=400, help="people to validate on")
    add("--image-size", type=int, default=112, help="side of the images in pixels")
    add("--seed", type=int, default=0, help="the same seed draws the same people")
    add("--workers", type=int, default=os.cpu_count() or 1, help="worker processes; 0: none")
    add("--overwrite", action="store_true", help="replace synthetic people of other settings")
    args = parser.parse_args()
    counts = {"train": args.train, "valid": args.valid}
    written = make_synthetic(
        args.out, counts, args.seed, args.image_size, args.workers, args.overwrite
    )
    print(f"{'wrote' if written else 'kept'} {args.train} + {args.valid} people in {args.out}")


if __name__ == "__main__":
    run_command(main)
