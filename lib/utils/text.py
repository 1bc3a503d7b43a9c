"""Text for messages: user input on one line, lists of names, tables."""

import os
import re
from collections.abc import Iterable, Sequence

# Control characters, line breaks, and surrogates, which no file system can encode.
_NO_PATH = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def shorten(text: str) -> str:
    """Return user input as one printable line; long text loses its middle."""
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    return line if len(line) <= 200 else f"{line[:120]}...{line[-60:]}"


def is_valid_path(text: str) -> bool:
    """Whether `text` can be a path and be shown on one line."""
    names = re.split(r"[/\\]", text)
    return not _NO_PATH.search(text) and all(len(name.encode()) <= 255 for name in names)


def expand_home(path: str) -> str:
    """Return a path with the home folder for a `~` at its start."""
    return re.sub(r"^~(?=/|$)", lambda match: os.path.expanduser("~"), path)


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 person`, `2 people`; `many` is by default `one` and s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def join_names(names: Sequence[str], limit: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
