"""Logging to the console and the folder of the run."""

import logging
import sys
from pathlib import Path

from lib.utils.errors import as_user_error

FILE_ONLY = {"file_only": True}  # `extra` of a line that standard error does not show


def set_up_logging(folder: Path | None, name: str, quiet: bool = False) -> None:
    """Log to standard error and, if `folder` is given, to `folder/<name>.log`.

    `quiet`, for all processes but the main one: warnings only, and to the file only errors.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].addFilter(lambda record: not hasattr(record, "file_only"))
    if folder is not None:
        with as_user_error(f"cannot write to the output folder {folder}; see --modelDir"):
            folder.mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(folder / f"{name}.log", "a", None, quiet, "backslashreplace")
        file.setLevel(logging.ERROR if quiet else logging.INFO)
        handlers.append(file)
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, handlers=handlers, force=True,
        format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S",
    )  # fmt: skip
    logging.getLogger("timm").setLevel(logging.WARNING)  # it explains every load of weights
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns twice at every retry
