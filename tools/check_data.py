"""Check a data set: python tools/check_data.py --cfg FILE [KEY VALUE ...].

Counts people and joints of DATASET.TRAIN_SET and TEST_SET, reads every image, reports what is wrong
or suspicious, and draws people of each set. The exit code is 0 without findings, 1 with some, and 2
if the data cannot be read.
"""

import sys
from pathlib import Path

from lib.config import load_cfg
from lib.dataset.check import check_data
from lib.utils.arguments import command_parser, overrides
from lib.utils.errors import run_command
from lib.utils.text import counted, join_names


def main() -> None:
    """Check, print the report, write findings and contact sheets."""
    parser = command_parser(__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="folder of findings.json and the contact sheets; default: check_data "
                        "in the folder of the data set's runs")  # fmt: skip
    arguments = parser.parse_intermixed_args()
    cfg = load_cfg(arguments.cfg, overrides(arguments))
    folder = arguments.out or Path(cfg.OUTPUT_DIR) / cfg.DATASET.DATASET / "check_data"
    report = check_data(cfg)
    print(report)
    print(f"wrote {join_names(report.save(folder))}")
    print(f"{counted(len(report.findings), 'finding')}")
    sys.exit(1 if report.findings else 0)


if __name__ == "__main__":
    run_command(main)
