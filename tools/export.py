"""Write a network for other runtimes: python tools/export.py --cfg FILE TEST.MODEL_FILE CHECKPOINT.

What is written is compared with PyTorch on real pictures first, and not kept where it differs.
"""

import argparse
from pathlib import Path

from lib.core.export.write import ENDINGS, crops_of_pictures, crops_of_set, export
from lib.core.session import open_session
from lib.utils.arguments import command_parser, overrides
from lib.utils.errors import run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    parser.add_argument("--format", choices=ENDINGS, default="onnx", help="default: onnx")
    parser.add_argument("--decode", action="store_true", help="joints and scores, not heatmaps")
    parser.add_argument("--out", metavar="FILE", help="default: beside the checkpoint")
    parser.add_argument(
        "--images", action="append", metavar="FILE|FOLDER",
        help="pictures to check on, may come again; default: the first people of DATASET.TEST_SET",
    )  # fmt: skip
    return parser.parse_intermixed_args()


def main() -> None:
    """Export, and print what was compared and written."""
    arguments = parse_arguments()
    with open_session(arguments.cfg, overrides(arguments), "export") as session:
        cfg = session.cfg
        weights = session.model_file
        kind, decode = arguments.format, arguments.decode
        name = f"{weights.stem}{'_joints' if decode else ''}{ENDINGS[kind]}"
        path = Path(arguments.out or weights.with_name(name))
        if arguments.images:
            crops, where = crops_of_pictures(cfg, arguments.images)
        else:
            crops, where = crops_of_set(cfg)
        check = export(cfg, weights, path, crops, kind=kind, decode=decode)
        print(f"checked on {where}: {check}")
        print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main)
