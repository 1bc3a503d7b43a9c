"""Train a network: python tools/train.py --cfg FILE [KEY VALUE ...]."""

from lib.core.session import open_session
from lib.core.trainer import Trainer
from lib.utils.arguments import command_parser, overrides
from lib.utils.errors import run_command


def main() -> None:
    """Train, test after every epoch, and say where the results lie."""
    arguments = command_parser(__doc__).parse_intermixed_args()
    with open_session(arguments.cfg, overrides(arguments), "train") as session:
        trainer = Trainer(session.cfg, session.world, session.folder, session.log_folder)
        trainer.run()
        if session.world.is_first:
            if trainer.progress.best >= 0:
                print(f"best PCKh@0.5: {trainer.progress.best:.2f}")
            print(f"weights, log and pictures: {session.folder}")
            print(f"TensorBoard logs: {session.log_folder}")


if __name__ == "__main__":
    run_command(main)
