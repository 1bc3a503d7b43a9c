"""What users write: whether it can be a path, and how to show it in a line."""

import re
from collections.abc import Iterable, Sequence

# Control characters, line breaks, and surrogates, which no file system can encode.
_NO_PATH = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def brief(text: str) -> str:
    """Return what a user wrote as one line that a terminal shows; its middle left out if long."""
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    return line if len(line) <= 200 else f"{line[:120]}...{line[-60:]}"


def can_be_path(text: str) -> bool:
    """Whether a file can have that path, and a line of text can tell it."""
    names = re.split(r"[/\\]", text)
    return not _NO_PATH.search(text) and all(len(name.encode()) <= 255 for name in names)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows of text under their columns' names as a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
