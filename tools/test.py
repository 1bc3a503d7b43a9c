"""Test a checkpoint: python tools/test.py --cfg FILE TEST.MODEL_FILE CHECKPOINT [KEY VALUE ...]."""

from lib.core.evaluate import format_table
from lib.core.session import open_session
from lib.core.tester import score_checkpoint
from lib.utils.arguments import command_parser, overrides
from lib.utils.errors import run_command


def main() -> None:
    """Find the people of the test set, write what was found, print its PCKh."""
    arguments = command_parser(__doc__).parse_intermixed_args()
    with open_session(arguments.cfg, overrides(arguments), "test") as session:
        scores = score_checkpoint(session.cfg, session.world, session.folder, session.model_file)
        if session.world.is_first:
            print(format_table(scores) if scores else "no annotation to score with")
            print(f"predictions, scores and pictures: {session.folder}")


if __name__ == "__main__":
    run_command(main)
