"""What the torture tests share: a desk with people, and a place outside it to be left alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, open_desk

from lib.dataset.synthetic import make_synthetic


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few synthetic people; eight a step make four steps an epoch."""
    root = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(root, {"train": 32, "valid": 6}, seed=0, image_size=64)
    return root


@pytest.fixture
def desk(tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A desk in `tmp_path/home`; nothing may touch what lies beside it."""
    home = tmp_path / "home"
    home.mkdir()
    with open_desk(home, people, capsys) as desk:
        yield desk
