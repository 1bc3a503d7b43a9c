"""What the tests of commands share."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk

from lib.dataset.synthetic import make_synthetic


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few synthetic people."""
    root = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(root, {"train": 20, "valid": 6}, seed=0, image_size=64)
    return root


@pytest.fixture
def desk(tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Desk(tmp_path, people, capsys)
    root.handlers[:] = handlers
    root.setLevel(level)
