"""Logging to the console and the folder of the run."""

import logging
import sys
from pathlib import Path


def set_up_logging(folder: Path | None, name: str, quiet: bool = False) -> None:
    """Log to standard error and, if `folder` is given, to `folder/<name>.log`.

    `quiet`, for all processes but the main one: warnings only, and no file.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None and not quiet:
        handlers.append(logging.FileHandler(folder / f"{name}.log", errors="backslashreplace"))
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
        force=True,
    )
    logging.getLogger("timm").setLevel(logging.WARNING)  # it explains every load of weights
