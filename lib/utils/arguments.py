"""Arguments that the commands share, as in the HRNet family."""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any


def command_parser(description: str) -> argparse.ArgumentParser:
    """Build a parser of `--cfg FILE [--modelDir D] [--logDir D] [--dataDir D] KEY VALUE ...`.

    Parse with `parse_intermixed_args`, so that keys may be anywhere between the options. The
    directories are `model_dir`, `log_dir` and `data_dir`, the overrides `opts`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="the YAML configuration")
    for name, key in (("model", "OUTPUT_DIR"), ("log", "LOG_DIR"), ("data", "DATA_DIR")):
        parser.add_argument(
            f"--{name}Dir", dest=f"{name}_dir", metavar="DIR", help=f"replaces {key}"
        )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override keys")
    return parser


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides among the arguments of `command_parser`, as `KEY VALUE ...`."""
    directories = (
        ("OUTPUT_DIR", arguments.model_dir),
        ("LOG_DIR", arguments.log_dir),
        ("DATA_DIR", arguments.data_dir),
    )
    given = [word for key, value in directories if value is not None for word in (key, value)]
    return [*given, *arguments.opts]


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """Return a parser of one of the known words."""

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(known)}")
        return text

    return read


def several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return a parser of comma-separated values."""
    return lambda text: [kind(word) for word in text.split(",")]


def numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    """Return a parser of that many finite numbers, comma-separated."""

    def read(text: str) -> tuple[float, ...]:
        try:
            values = tuple(map(float, text.split(",")))
        except ValueError:
            values = ()
        if len(values) != count or not all(map(math.isfinite, values)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {count} numbers such as 1,2.5,...")
        return values

    return read
