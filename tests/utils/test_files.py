"""Folders that a failed write made are removed."""

from pathlib import Path

import pytest

from lib.utils.files import atomic_write, new_folder


def test_new_folders_stay_only_if_there_is_something_in_them(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    def fail(error: type[BaseException]) -> None:
        with atomic_write(tmp_path / "old/a/b/c.txt") as temporary:
            temporary.write_text("half")
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
        assert not list((tmp_path / "old").iterdir())

    def fail_late() -> None:
        with new_folder(tmp_path / "old/a/b"):
            (tmp_path / "old/a/file").touch()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail_late()
    assert [path.name for path in (tmp_path / "old/a").iterdir()] == ["file"]
    with new_folder(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()
