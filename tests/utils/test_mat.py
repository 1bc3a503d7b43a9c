"""MATLAB files: what was written comes back, and no damaged file ends the process."""

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
def test_arrays_come_back_however_a_file_is_written(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    savemat(path, ARRAYS, do_compression=compressed)
    assert_same(read_mat(path), ARRAYS)


def test_our_files_carry_checksums_and_are_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mat, "_read_apart", lambda path: pytest.fail("read in another process"))
    path = tmp_path / "b"  # a name without an ending stays as it is
    write_mat(path, ARRAYS)
    assert_same(read_mat(path), ARRAYS)


def test_bytes_that_end_scipys_process_are_told(tmp_path: Path) -> None:
    path = tmp_path / "plain.mat"
    savemat(path, ARRAYS)
    whole, told = path.read_bytes(), []
    # Flipped bits of sizes and types, on which SciPy 1.17 reads beyond its memory.
    for place, bit in ((184, 64), (304, 4), (388, 4), (426, 1)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"plain\.mat: cannot be read") as error:
            read_mat(path)
        told.append(str(error.value))
    assert "\n" not in "".join(told)


@pytest.mark.parametrize("content", [b"", b"x" * 64, b"MATLAB 5.0" + bytes(200)])
def test_what_is_no_matlab_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "none.mat"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"none\.mat: cannot be read"):
        read_mat(path)
