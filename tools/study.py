"""Compare variants: python tools/study.py --study FILE [--only NAME | --report] [KEY VALUE ...].

Resumes where the last command stopped. --only trains and tests some variants; --report trains
nothing and reports what is finished.
"""

import argparse

from lib.analysis.study.definition import load_study
from lib.analysis.study.report import write_report
from lib.analysis.study.run import run_study
from lib.core.session import open_session
from lib.utils.arguments import OPTS_HELP
from lib.utils.errors import UserError, run_command


def main() -> None:
    """Train and test every variant of the study with every seed; write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, metavar="FILE", help="YAML file of the study")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--report", action="store_true", help="train nothing")
    mode.add_argument(
        "--only", action="append", metavar="NAME", help="run this variant; repeatable; default: all"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help=OPTS_HELP)
    arguments = parser.parse_intermixed_args()
    study = load_study(arguments.study)
    with open_session(study.cfg, arguments.opts, "study", run=study.path.stem) as session:
        if not arguments.report:
            run_study(study, session.distributed, arguments.opts, arguments.only)
        if session.distributed.is_main:
            path = write_report(study, session.distributed.device, arguments.opts)
            if path is not None:
                print(path.read_text())
                print(f"report: {path}")
            elif arguments.report:
                raise UserError(f"{study.path}: no variant is tested yet; run it without --report")


if __name__ == "__main__":
    run_command(main)
