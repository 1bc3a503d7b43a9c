"""Make data/lspet from the official archive of Leeds Sports Pose extended, in MPII's layout."""

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
    add("--out", type=Path, required=True, help="folder to make, such as data/lspet")
    add("--valid", type=Path, help="valid.json whose people to test on; without it a tenth")
    add("--allow-missing", action="store_true", help="leave out people whose image is missing")
    add("--overwrite", action="store_true", help="replace annotation that --out already has")
    return parser.parse_args()


def main() -> None:
    """Prepare the folder that the command line asks for."""
    prepare(**vars(parse_arguments()), read=read_lspet, say=print)


if __name__ == "__main__":
    run_command(main)
