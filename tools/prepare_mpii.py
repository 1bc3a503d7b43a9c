"""Convert the official MPII release to the annotation that training reads."""

import argparse
from pathlib import Path

from lib.dataset.release.mpii import read_release
from lib.dataset.release.prepare import prepare
from lib.utils.errors import run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Without --valid the validation split is our own: it shares no video with train, "
        "but its scores do not compare with published ones.",
    )
    add = parser.add_argument
    add("--mat", type=Path, required=True, help="mpii_human_pose_v1_u12_1.mat")
    add("--images", type=Path, required=True, help="folder of the images, or a .zip of them")
    add("--out", type=Path, required=True, help="folder to write, such as data/mpii")
    add("--valid", type=Path, help="valid.json with the people to validate on")
    add(
        "--separate-images",
        action="store_true",
        help="exclude training people who share an image with a person of valid, "
        "as the published train.json does",
    )
    add("--allow-missing", action="store_true", help="exclude people whose image is missing")
    add("--overwrite", action="store_true", help="replace existing annotation in --out")
    return parser.parse_args()


def main() -> None:
    """Write the data set to --out."""
    arguments = parse_arguments()
    prepare(**vars(arguments), read=read_release, log=print)


if __name__ == "__main__":
    run_command(main)
