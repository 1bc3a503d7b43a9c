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
    add("--out", type=Path, required=True, help="folder to write, such as data/synthetic")
    add("--train", type=int, default=6000, help="people to train on; default: %(default)s")
    add("--valid", type=int, default=400, help="people to validate on; default: %(default)s")
    add("--image-size", type=int, default=112, help="side in pixels; default: %(default)s")
    add("--seed", type=int, default=0, help="the same draws the same people; default: 0")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes; default: one per core")
    add("--overwrite", action="store_true", help="replace people of other settings in --out")
    args = parser.parse_args()
    counts = {"train": args.train, "valid": args.valid}
    written = make_synthetic(
        args.out, counts, args.seed, args.image_size, args.workers, args.overwrite
    )
    print(f"{'wrote' if written else 'kept'} {args.train} + {args.valid} people in {args.out}")


if __name__ == "__main__":
    run_command(main)
