"""docs/configuration.md describes every key, and is up to date."""

import runpy
from collections.abc import Iterator
from pathlib import Path

from yacs.config import CfgNode

from lib.config import default, get_cfg

ROOT = Path(__file__).resolve().parents[1]
PAGE = runpy.run_path(str(ROOT / "docs/make_configuration.py"))
read_entries, reference = PAGE["read_entries"], PAGE["reference"]


def test_committed_page_is_the_generated_one() -> None:
    committed = (ROOT / "docs/configuration.md").read_text()
    assert committed == reference(), (
        "run: python docs/make_configuration.py > docs/configuration.md"
    )


def test_every_key_and_section_has_a_meaning() -> None:
    entries = {key: meaning for key, _, meaning in read_entries(Path(default.__file__).read_text())}
    assert set(entries) == set(_keys(get_cfg()))
    assert all(len(meaning) >= 3 for meaning in entries.values())


def test_page_has_a_row_with_the_default_of_every_key() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    cells = {row.split("`")[1]: row.split("`")[3] for row in rows}
    assert cells["TRAIN.LR"] == "0.001"
    assert cells["MODEL.EXTRA"] == "{}"
    leaves = {key for key in _keys(get_cfg()) if not _is_section(key)}
    assert set(cells) == leaves


def test_angle_brackets_are_code_and_not_html() -> None:
    for row in reference().splitlines():
        outside_code = row.split("`")[::2]
        assert not any("<" in text for text in outside_code), row


def _keys(cfg: CfgNode, above: str = "") -> Iterator[str]:
    for name, value in cfg.items():
        yield above + name
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{above}{name}.")


def _is_section(key: str) -> bool:
    value = get_cfg()
    for name in key.split("."):
        value = value[name]
    return isinstance(value, CfgNode) and bool(value)
