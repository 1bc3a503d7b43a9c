"""Fixtures of the tests of commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, open_desk

from lib.dataset.synthetic.people import make_synthetic


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a few synthetic people."""
    root = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(root, {"train": 20, "valid": 6}, seed=0, image_size=64)
    return root


@pytest.fixture
def desk(tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    with open_desk(tmp_path, people, capsys) as desk:
        yield desk
