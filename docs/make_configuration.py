"""Generates docs/configuration.md from the comments of `lib/config/default.py`.

`python docs/make_configuration.py > docs/configuration.md`
"""

import ast
import inspect
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from lib.config.default import get_cfg
from lib.utils.text import markdown_table

_INTRODUCTION = """# Configuration

All keys with their defaults. A YAML file (`--cfg FILE`) changes the defaults, and `KEY VALUE` pairs
on the command line change the file, as in `TRAIN.LR 0.0005`. A file can extend another one with
`BASE: other.yaml`, relative to itself. Sizes are [width, height].

This page is generated: `python docs/make_configuration.py > docs/configuration.md`."""


def read_entries(source: str) -> Iterator[tuple[str, str, str]]:
    """Yield (key, default, meaning) of each line `_C.KEY = default  # meaning`, in order.

    The default of a section is "Node()".
    """
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string[1:].strip() for t in tokens if t.type == tokenize.COMMENT}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            key = ast.unparse(node.targets[0]).removeprefix("_C.")
            yield key, ast.unparse(node.value), comments.get(node.lineno, "")


def reference() -> str:
    """Return the page: one table per section, the keys without a section first."""
    titles = {"": "Output and devices"}
    rows: dict[str, list[list[str]]] = {"": []}
    source = Path(inspect.getfile(get_cfg)).read_text()
    for key, default, meaning in read_entries(source):
        if default == "Node()":
            titles[key], rows[key] = f"{key}: {meaning}", []
        else:
            default = default.replace("Node(new_allowed=True)", "{}")
            rows[key.rpartition(".")[0]].append([f"`{key}`", f"`{default}`", meaning])
    tables = (
        f"## {title}\n\n{markdown_table(('key', 'default', 'meaning'), rows[section])}"
        for section, title in titles.items()
    )
    return "\n\n".join([_INTRODUCTION, *tables]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
