"""Train a network: python tools/train.py --cfg FILE [KEY VALUE ...]."""

from lib.core.results import hold
from lib.core.session import open_session
from lib.core.trainer import Trainer
from lib.utils.arguments import command_parser, overrides
from lib.utils.errors import run_command


def main() -> None:
    """Train, test now and then, and print the folders of the results."""
    arguments = command_parser(__doc__).parse_intermixed_args()
    with open_session(arguments.cfg, overrides(arguments), "train") as session:
        with hold(session.folder, session.distributed):
            trainer = Trainer(session.cfg, session.distributed, session.folder, session.log_folder)
            trainer.run()
        if session.distributed.is_main:
            if trainer.progress.best is not None:
                print(f"best {trainer.metric.name}: {trainer.progress.best:.4g}")
            print(f"weights, log and images: {session.folder}")
            print(f"TensorBoard logs: {session.log_folder}")


if __name__ == "__main__":
    run_command(main)
