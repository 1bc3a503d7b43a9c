"""The examples of CONTRIBUTING.md are the files that the other tests here use."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_its_examples_are_these_files() -> None:
    page = (HERE.parents[1] / "CONTRIBUTING.md").read_text()
    shown = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    files = [path.read_text() for path in HERE.glob("toy_*.py")]
    assert sorted(shown) == sorted(files)
