"""Convert the official MPII release to the annotation that training reads."""

from lib.dataset.release.mpii import read_release
from lib.dataset.release.prepare import prepare
from lib.utils.arguments import release_parser
from lib.utils.errors import run_command


def main() -> None:
    """Write the data set to --out."""
    parser = release_parser(__doc__, mat="mpii_human_pose_v1_u12_1.mat", out="data/mpii")
    parser.epilog = (
        "Without --valid the validation split is our own: it shares no video with train, but its "
        "scores do not compare with published ones."
    )
    parser.add_argument("--separate-images", action="store_true",
        help="exclude training people who share an image with a person of valid, as the published "
        "train.json does")  # fmt: skip
    prepare(**vars(parser.parse_args()), read=read_release, log=print)


if __name__ == "__main__":
    run_command(main)
