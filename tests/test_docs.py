"""What README and docs/ name exists: files, commands, options, keys, make targets."""

import argparse
import functools
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from lib.config import get_cfg
from lib.config.check import value_of

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
CARD = ROOT / "models/people/README.md"
GUIDE = [README, CARD, *sorted((ROOT / "docs").glob("*.md"))]  # what describes today's behaviour
PAGES = [*GUIDE, *ROOT.glob("C*.md"), *ROOT.glob("*/README.md")]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", GUIDE, ids=_name)
def test_files_in_commands_exist(page: Path) -> None:
    named = re.findall(r"\b(?:experiments|tools|lib)/[\w/.-]+\.(?:yaml|py)\b", page.read_text())
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| `tools/(\w+\.py)` \|", README.read_text(), re.MULTILINE)
    assert sorted(listed) == TOOLS


@pytest.mark.parametrize("page", GUIDE, ids=_name)
def test_options_exist_in_the_command_they_are_given_to(page: Path) -> None:
    unknown = [
        f"tools/{tool} {option}"
        for tool, options in _commands(page.read_text())
        for option in options
        if option not in _options(tool)
    ]
    assert unknown == []


@pytest.mark.parametrize("page", GUIDE, ids=_name)
def test_options_on_their_own_exist_in_some_command(page: Path) -> None:
    known = set().union(*map(_options, TOOLS))
    named = re.findall(r"`(--\w[\w-]*)", page.read_text())
    assert set(named) - {"--editable", "--no-deps", "--shm-size"} <= known  # pip's and Docker's


@pytest.mark.parametrize("tool", TOOLS)
def test_help_describes_every_option_and_states_its_default(tool: str) -> None:
    actions = _parser(tool)._actions
    assert [action.dest for action in actions if not action.help] == []
    for action in actions:
        if action.nargs != 0 and action.default not in (None, argparse.SUPPRESS, []):
            assert "default" in action.help, action.option_strings


@pytest.mark.parametrize("page", GUIDE, ids=_name)
def test_configuration_keys_exist(page: Path) -> None:
    sections = "|".join(name for name, value in get_cfg().items() if isinstance(value, dict))
    for key in re.findall(rf"\b(?:{sections})\.[A-Z][A-Z_.0-9]*[A-Z0-9]", page.read_text()):
        value_of(get_cfg(), key)


@pytest.mark.parametrize("page", GUIDE, ids=_name)
def test_make_targets_exist(page: Path) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make (\w+)", page.read_text(), re.MULTILINE)) <= set(targets)


def test_lowest_versions_are_the_lower_bounds_of_the_dependencies() -> None:
    declared = re.findall(r'"([\w-]+)>=([\d.]+)"', _install_requires())
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", _text("requirements-lowest.txt"), re.M))
    assert len(declared) > 10
    for package, bound in declared:
        assert pinned[package] == bound or pinned[package].startswith(f"{bound}.0")


def _text(name: str) -> str:
    return (ROOT / name).read_text()


def _install_requires() -> str:
    return _text("setup.py").partition("install_requires=[")[2].partition("]")[0]


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each `tools/NAME.py ...` of a page with the options written after it."""
    for tool, rest in re.findall(r"tools/(\w+\.py)([^\n`#]*)", text.replace("\\\n", " ")):
        yield tool, re.findall(r"(?<!\S)--\w[\w-]*", rest)


def _options(tool: str) -> frozenset[str]:
    """Return the options of a command."""
    return frozenset(re.findall(r"--\w[\w-]*", _parser(tool).format_usage())) | {"--help"}


@functools.cache
def _parser(tool: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        parsers.append(parser)
        raise SystemExit

    parsers: list[argparse.ArgumentParser] = []
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop),
        mock.patch.object(argparse.ArgumentParser, "parse_known_intermixed_args", stop),
        pytest.raises(SystemExit),
    ):
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    return parsers[0]
