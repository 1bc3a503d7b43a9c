"""Inspect a checkpoint: python tools/inspect_sparsity.py --cfg FILE --input IMAGE [KEY VALUE ...].

Writes a page, index.html, that shows each joint's attention, what pruning keeps, and the mask.
"""

from pathlib import Path

from lib.analysis.inspection.page import inspect_checkpoint
from lib.core.session import open_session
from lib.utils.arguments import comma_list, command_parser, overrides
from lib.utils.errors import run_command


def main() -> None:
    """Inspect the network on one person and write the page."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, metavar="IMAGE", help="image file to inspect the network on")
    add("--box", type=comma_list(float), metavar="X,Y,W,H",
        help="box of the person, such as --box=-5,0,90,200; default: the whole image")  # fmt: skip
    add("--out", type=Path, metavar="DIR",
        help="output folder; default: <the run's folder>/inspect/<name of the image>")  # fmt: skip
    arguments = parser.parse_intermixed_args()
    if arguments.box is not None and len(arguments.box) != 4:
        parser.error("argument --box: needs four numbers, X,Y,W,H")
    with open_session(arguments.cfg, overrides(arguments), "inspect_sparsity") as session:
        page = inspect_checkpoint(
            session, arguments.cfg, arguments.input, arguments.box, arguments.out
        )
        print(f"wrote {page}")


if __name__ == "__main__":
    run_command(main)
