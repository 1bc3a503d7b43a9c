"""MATLAB files: a round trip keeps the arrays, and no damaged file crashes the process."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from lib.utils import mat
from lib.utils.errors import UserError
from lib.utils.mat import read_mat, write_mat

ARRAYS = {"numbers": np.arange(12.0).reshape(3, 4), "names": np.array([["a", "bc"]], dtype=object)}


def assert_same(read: dict, written: dict) -> None:
    assert read.keys() == written.keys()
    np.testing.assert_array_equal(read["numbers"], written["numbers"])
    assert [str(name[0]) for name in read["names"].ravel()] == list(written["names"].ravel())


@pytest.mark.parametrize("compressed", [True, False])
def test_round_trip(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    savemat(path, ARRAYS, do_compression=compressed)
    assert_same(read_mat(path), ARRAYS)


def test_our_own_files_need_no_child_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mat.subprocess, "run", lambda *_, **__: pytest.fail("started a child"))
    path = tmp_path / "b"  # a name without a suffix is kept
    write_mat(path, ARRAYS)
    assert_same(read_mat(path), ARRAYS)


# Flipped bits of sizes and types, on which SciPy 1.17 reads beyond its memory.
@pytest.mark.parametrize(("position", "bit"), [(184, 64), (304, 4), (388, 4), (426, 1)])
def test_bytes_that_crash_scipy_are_an_error(tmp_path: Path, position: int, bit: int) -> None:
    path = tmp_path / "plain.mat"
    savemat(path, ARRAYS)
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= bit
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"plain\.mat: cannot be read"):
        read_mat(path)


@pytest.mark.parametrize("content", [b"", b"x" * 64, b"MATLAB 5.0" + bytes(200)])
def test_other_content_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "none.mat"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"none\.mat: cannot be read"):
        read_mat(path)
    with pytest.raises(UserError, match=r"absent\.mat: no such file"):
        read_mat(tmp_path / "absent.mat")
