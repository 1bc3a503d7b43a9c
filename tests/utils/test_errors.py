"""Commands end with one line, on terminals of any encoding."""

import io
import logging
import sys
from pathlib import Path

import pytest

from lib.utils.errors import as_user_error, run_command
from lib.utils.logging import set_up_logging

NAME = "\u00e9\u4eba\udcff"  # Latin, Chinese, and a byte of a file name that is not UTF-8


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_another_encoding_gets_what_it_can_show(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    run_command(lambda: print(NAME))  # noqa: T201
    stream.seek(0)
    assert stream.read() == NAME.encode(encoding, "backslashreplace").decode(encoding) + "\n"


def test_the_log_takes_every_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def command() -> None:
        set_up_logging(tmp_path, "test")
        logging.getLogger("lib").info("%s", NAME)

    try:
        run_command(command)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert r"\udcff" in (tmp_path / "test.log").read_text()
    assert "Traceback" not in capsys.readouterr().err


def test_the_home_folder_is_found_in_every_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    words = ["--out=~/a~/~", "~/x", "~", "KEY", "a~/b", "--x=b=~/", "~\0", "~~/", "--a~/"]
    monkeypatch.setattr(sys, "argv", ["~/tool", *words])
    run_command(lambda: None)
    assert sys.argv[:4] == ["~/tool", "--out=/home/me/a~/~", "/home/me/x", "/home/me"]
    assert sys.argv[4:] == words[3:]


def test_the_death_of_a_loader_process_keeps_its_own_message() -> None:
    with pytest.raises(RuntimeError, match="DataLoader worker"), as_user_error("cannot write logs"):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
