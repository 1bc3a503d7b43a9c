"""Look inside: python tools/inspect_sparsity.py --cfg FILE --input IMAGE [TEST.MODEL_FILE F ...].

Writes a page, index.html, and pictures: what pruning leaves, where each joint looks, the mask.
"""

import argparse
from pathlib import Path

from lib.core.inspection.files import inspect_checkpoint
from lib.core.session import open_session
from lib.utils.arguments import command_parser, numbers, overrides
from lib.utils.errors import run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    parser.add_argument("--input", required=True, metavar="IMAGE", help="the picture")
    parser.add_argument(
        "--box",
        type=numbers(4),
        metavar="X,Y,W,H",
        help="the person in it, in pixels, as --box=-5,0,90,200; else all of it",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="else <the run's folder>/inspect/<picture's name>"
    )
    return parser.parse_intermixed_args()


def main() -> None:
    """Find one person, and show what the network did to find them."""
    arguments = parse_arguments()
    with open_session(arguments.cfg, overrides(arguments), "inspect_sparsity") as session:
        page = inspect_checkpoint(
            session, arguments.cfg, arguments.input, arguments.box, arguments.out
        )
        print(f"open {page}; its pictures lie beside it")


if __name__ == "__main__":
    run_command(main)
