"""Errors that the user can fix, shown in one line."""

import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lib.utils.text import expand_home, shorten


class UserError(Exception):
    """A file, key or argument is wrong; the message names it and says what to change."""


@contextmanager
def as_user_error(text: str) -> Iterator[None]:
    """Raise any error, such as of reading a damaged file, as a UserError `text (reason)`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if "DataLoader worker" in str(error):  # one died; PyTorch raises this anywhere
            raise
        reason = shorten(getattr(error, "strerror", None) or str(error))
        if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
            reason = f"{error.filename}: {reason}"
        raise UserError(f"{text} ({reason or type(error).__name__})") from None


def run_command(main: Callable[[], None]) -> None:
    """Run a command: a UserError becomes one line and exit code 2, Ctrl-C exit code 130.

    Characters that the terminal cannot show are printed as `\\xe9`. In arguments `~`, which shells
    leave in `--out=~/results` and in quotes, is the home folder.
    """
    for index, word in enumerate(sys.argv[1:], 1):
        option, path = re.findall(r"(?s)^(--[\w-]+=)?(.*)", word)[0]
        sys.argv[index] = option + expand_home(path)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show = logging.getLogger(__name__).warning  # a line, without the place in a library's code
    warnings.showwarning = lambda message, *_, **__: show(shorten(str(message)))
    try:
        main()
    except UserError as error:
        logging.shutdown()
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
