"""Folders of runs: who holds one, and where results go that must not replace others."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from lib.core.results import RESULTS, hold, results_folder, set_aside, trained_files
from lib.utils.distributed import Distributed
from lib.utils.errors import UserError

MAIN, OTHER = (Distributed(torch.device("cpu"), rank, 2) for rank in (0, 1))


def test_a_held_folder_names_its_holder(tmp_path: Path) -> None:
    with hold(tmp_path, OTHER), hold(tmp_path, MAIN), hold(tmp_path, OTHER):
        name = f"process {os.getpid()} on {socket.gethostname()}"
        with (
            pytest.raises(UserError, match=f"{tmp_path} is in use by {name}"),
            hold(tmp_path, MAIN),
        ):
            pytest.fail("two hold it")
    with hold(tmp_path, MAIN):
        pass


def test_a_folder_is_free_if_its_holder_is_killed(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        with hold(tmp_path, MAIN):
            time.sleep(60)
    holder = tmp_path / ".lock_holder"
    while not holder.exists() or f" {child} " not in holder.read_text():
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"process {child}"), hold(tmp_path, MAIN):
        pytest.fail("two hold it")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with hold(tmp_path, MAIN):
        pass


def test_results_of_another_test_have_their_own_folder(tmp_path: Path) -> None:
    assert results_folder(tmp_path, "a1") == tmp_path
    (tmp_path / RESULTS).write_text('{"tested": "a1"}')
    assert results_folder(tmp_path, "a1") == tmp_path
    assert results_folder(tmp_path, "b2") == tmp_path / "test_2"
    (tmp_path / "test_2").mkdir()
    (tmp_path / "test_2" / RESULTS).write_bytes(b"\xff damaged")
    assert results_folder(tmp_path, "b2") == tmp_path / "test_3"


def test_files_are_set_aside_each_time_into_a_new_folder(tmp_path: Path) -> None:
    set_aside(tmp_path)
    assert not list(tmp_path.iterdir())
    for number in (1, 2):
        for name in ("checkpoint.pth", "checkpoint_previous.pth", "pred.mat", ".lock"):
            (tmp_path / name).write_text(str(number))
        kept = trained_files(tmp_path) if number == 1 else []
        set_aside(tmp_path, keep=kept)
        moved = sorted(path.name for path in (tmp_path / f"outdated_{number}").iterdir())
        assert moved == sorted(
            {"checkpoint.pth", "checkpoint_previous.pth", "pred.mat"} - {path.name for path in kept}
        )
    assert (tmp_path / "outdated_1/pred.mat").read_text() == "1"
