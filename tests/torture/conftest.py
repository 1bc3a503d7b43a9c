"""Fixtures of the torture tests: a desk in a folder of which nothing else may change."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, open_desk

from lib.dataset.synthetic.people import make_synthetic


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a few synthetic people; an epoch has four steps of eight."""
    root = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(root, {"train": 32, "valid": 6}, seed=0, image_size=64)
    return root


@pytest.fixture
def desk(tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A desk in `tmp_path/home`; nothing outside it may be touched."""
    home = tmp_path / "home"
    home.mkdir()
    with open_desk(home, people, capsys) as desk:
        yield desk
