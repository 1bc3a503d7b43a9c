"""What the user can mend, said in one line."""

import logging
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something in the user's files, keys or arguments is wrong; the message names the mend."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command: a UserError becomes one line and exit code 2, Ctrl-C exit code 130."""
    try:
        main()
    except UserError as error:
        message = " ".join(str(error).split())
        logging.shutdown()
        sys.exit(_say(f"error: {message}", 2))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted", 130))


def _say(text: str, code: int) -> int:
    sys.stderr.write(text + "\n")
    return code
