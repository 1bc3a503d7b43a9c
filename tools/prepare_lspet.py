"""Convert the official archive of Leeds Sports Pose extended to MPII's layout."""

from lib.dataset.release.lspet import read_lspet
from lib.dataset.release.prepare import prepare
from lib.utils.arguments import release_parser
from lib.utils.errors import run_command


def main() -> None:
    """Write the data set to --out."""
    arguments = release_parser(__doc__, mat="joints.mat", out="data/lspet").parse_args()
    prepare(**vars(arguments), read=read_lspet, log=print)


if __name__ == "__main__":
    run_command(main)
