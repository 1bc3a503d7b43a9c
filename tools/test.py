"""Test a checkpoint: python tools/test.py --cfg FILE TEST.MODEL_FILE CHECKPOINT [KEY VALUE ...]."""

from lib.core.session import open_session
from lib.core.tester import evaluate_checkpoint
from lib.utils.arguments import command_parser, overrides
from lib.utils.errors import run_command


def main() -> None:
    """Predict the people of the test set, write the predictions, print the scores."""
    arguments = command_parser(__doc__).parse_intermixed_args()
    with open_session(arguments.cfg, overrides(arguments), "test") as session:
        table = evaluate_checkpoint(
            session.cfg, session.distributed, session.folder, session.model_file
        )
        if session.distributed.is_main:
            print(table)


if __name__ == "__main__":
    run_command(main)
