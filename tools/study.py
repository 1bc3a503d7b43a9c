"""Compare variants: python tools/study.py --study FILE [--only NAME | --report] [KEY VALUE ...].

Goes on where the last command stopped; --only trains and tests some, --report only writes what is
done so far.
"""

import argparse

from lib.core.session import open_session
from lib.core.study.definition import load_study
from lib.core.study.report import write_report
from lib.core.study.run import run_study
from lib.utils.errors import UserError, run_command


def main() -> None:
    """Train and test every variant of the study with every seed; write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, metavar="FILE", help="the YAML study")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--report", action="store_true", help="train nothing, write the report")
    how.add_argument(
        "--only", action="append", metavar="NAME", help="this variant now; repeat it for more"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override keys of all")
    arguments = parser.parse_intermixed_args()
    study = load_study(arguments.study)
    with open_session(study.cfg, arguments.opts, "study", run=study.path.stem) as session:
        if not arguments.report:
            run_study(study, session.world, arguments.opts, arguments.only)
        if session.world.is_first:
            path = write_report(study, session.world.device, arguments.opts)
            if path is not None:
                print(path.read_text())
                print(f"report and plots: {path.parent}")
            elif arguments.report:
                raise UserError(f"{study.path}: no variant is tested yet; run it without --report")


if __name__ == "__main__":
    run_command(main)
