"""Arguments that several commands share, named as in the HRNet family."""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

_DIRECTORIES = {"--modelDir": "OUTPUT_DIR", "--logDir": "LOG_DIR", "--dataDir": "DATA_DIR"}
OPTS_HELP = "keys of the configuration and their new values, such as TRAIN.LR 0.001"


def command_parser(description: str, default: str = "") -> argparse.ArgumentParser:
    """Build a parser of `--cfg FILE [--modelDir D] [--logDir D] [--dataDir D] KEY VALUE ...`.

    Parse with `parse_intermixed_args`, so that keys may be anywhere between the options. `default`
    says what is used without `--cfg`, which is otherwise required.
    """
    parser = argparse.ArgumentParser(description=description)
    about = "YAML file of the configuration" + (f"; default: {default}" if default else "")
    parser.add_argument("--cfg", required=not default, metavar="FILE", help=about)
    for option, key in _DIRECTORIES.items():
        parser.add_argument(option, dest=key, metavar="DIR", help=f"replaces the key {key}")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help=OPTS_HELP)
    return parser


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides among the arguments of `command_parser`, as `KEY VALUE ...`."""
    directories = [(key, getattr(arguments, key)) for key in _DIRECTORIES.values()]
    words = [word for key, value in directories if value is not None for word in (key, value)]
    return [*words, *arguments.opts]


def release_parser(description: str, mat: str, out: str) -> argparse.ArgumentParser:
    """Build a parser of the arguments of `prepare`; `mat` and `out` are examples for the help."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--mat", type=Path, required=True, help=f"annotation file of the release, {mat}")
    add("--images", type=Path, required=True, help="folder of the images, or a .zip")
    add("--out", type=Path, required=True, help=f"folder to write, such as {out}")
    text = "valid.json with the people to validate on; default: chosen here, always the same ones"
    add("--valid", type=Path, help=text)
    add("--overwrite", action="store_true", help="replace annotation in --out; otherwise an error")
    return parser


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def comma_list(
    parse: Callable[[str], Any], choices: Collection[str] | None = None
) -> Callable[[str], list[Any]]:
    """Return a parser of comma-separated values, each of which is one of `choices`, if given."""

    def items(text: str) -> list[Any]:
        values = [parse(word) for word in text.split(",")]
        if choices is not None and not set(values) <= set(choices):
            raise argparse.ArgumentTypeError(f"{text!r} is not among {', '.join(choices)}")
        return values

    return items
