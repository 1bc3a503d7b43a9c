"""Convert the official archive of Leeds Sports Pose extended to MPII's layout."""

import argparse
from pathlib import Path

from lib.dataset.release.lspet import read_lspet
from lib.dataset.release.prepare import prepare
from lib.utils.errors import run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--mat", type=Path, required=True, help="joints.mat of the archive")
    add("--images", type=Path, required=True, help="folder of its images, or a .zip of them")
    add("--out", type=Path, required=True, help="folder to write, such as data/lspet")
    add("--valid", type=Path, help="valid.json with the people to test on (default: a tenth)")
    add("--allow-missing", action="store_true", help="exclude people whose image is missing")
    add("--overwrite", action="store_true", help="replace existing annotation in --out")
    return parser.parse_args()


def main() -> None:
    """Write the data set to --out."""
    prepare(**vars(parse_arguments()), read=read_lspet, log=print)


if __name__ == "__main__":
    run_command(main)
