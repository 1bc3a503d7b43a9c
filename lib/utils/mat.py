"""MATLAB 5 files, read without trust: some damaged bytes end the process in which SciPy reads them.

Compressed elements carry checksums, which SciPy heeds. A file with others is read in a process of
its own, half a second later.
"""

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, savemat

from lib.utils.errors import UserError
from lib.utils.files import replacing
from lib.utils.text import brief

_HEADER = 128  # bytes before the first element
_COMPRESSED = 15  # the type of an element that zlib packed

_READ = """
import pickle, sys
from scipy.io import loadmat
try:
    read = loadmat(sys.argv[1], appendmat=False)
except Exception as error:
    sys.exit(str(error) or type(error).__name__)
pickle.dump(read, sys.stdout.buffer)
"""


def read_mat(path: str | Path) -> dict[str, Any]:
    """Read the arrays of a `.mat` file by name; UserError, one line, where it is missing or broken.

    No file runs code, and no damage ends this process. One made for it, whose checksums are right
    and whose sizes are not, still can.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        content = loadmat(path, appendmat=False) if _has_checksums(path) else _read_apart(path)
    except Exception as error:  # SciPy raises nearly any kind on a broken file
        raise UserError(
            f"{path}: cannot be read as a MATLAB 5 .mat file ({brief(str(error))[:80]})"
        ) from error
    return {name: value for name, value in content.items() if not name.startswith("__")}


def write_mat(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, compressed, so that the file carries checksums; UserError if it cannot."""
    with replacing(path) as aside:
        savemat(aside, dict(arrays), appendmat=False, do_compression=True)


def _has_checksums(path: Path) -> bool:
    """Whether every element is compressed, by the tags (type and size) that they begin with."""
    data = path.read_bytes()
    order = "big" if data[_HEADER - 2 : _HEADER] == b"MI" else "little"
    place = _HEADER
    while place < len(data):
        kind, size = (int.from_bytes(data[i : i + 4], order) for i in (place, place + 4))
        if kind != _COMPRESSED:
            return False
        place += 8 + size
    return place > _HEADER


def _read_apart(path: Path) -> dict[str, Any]:
    """Read in another process; ValueError where that fails or dies."""
    done = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True)
    if done.returncode < 0:
        raise ValueError(f"its bytes are damaged: reading them ends in signal {-done.returncode}")
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip())
    return pickle.loads(done.stdout)  # noqa: S301 - our own child wrote it, from arrays alone
