"""MATLAB 5 files, read safely: on some damaged bytes SciPy crashes the process that reads them."""

import pickle
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, savemat

from lib.utils.errors import UserError
from lib.utils.files import atomic_write

_HEADER = 128  # bytes before the first element
_COMPRESSED = 15  # type of a zlib-compressed element
_READ = (
    "import pickle, sys; from scipy.io import loadmat; "
    "pickle.dump(loadmat(sys.argv[1], appendmat=False), sys.stdout.buffer)"
)


def read_mat(path: str | Path) -> dict[str, Any]:
    """Read the arrays of a `.mat` file by name; UserError if it is missing or damaged.

    Compressed elements carry checksums, which SciPy verifies; a file with any other element is read
    in a child process, which takes half a second more. Reading never runs code from the file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if _is_compressed(path.read_bytes()):
            content = loadmat(path, appendmat=False)
        else:
            command = [sys.executable, "-c", _READ, str(path)]
            child = subprocess.run(command, check=True, capture_output=True)
            content = pickle.loads(child.stdout)  # noqa: S301 - our own child wrote it
    except Exception as error:  # SciPy raises nearly any type on a damaged file
        raise UserError(
            f"{path}: cannot be read as a MATLAB 5 .mat file: it is damaged or of another format, "
            "such as MATLAB 7.3, which MATLAB's `save -v7` converts"
        ) from error
    return {name: value for name, value in content.items() if not name.startswith("__")}


def write_mat(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, compressed, hence with checksums; UserError if the file cannot be written."""
    with atomic_write(path) as temporary:
        savemat(temporary, dict(arrays), appendmat=False, do_compression=True)


def _is_compressed(data: bytes) -> bool:
    """Whether every element is compressed, according to its tag (type and size)."""
    tag = struct.Struct(">II" if data[_HEADER - 2 : _HEADER] == b"MI" else "<II")
    position = _HEADER
    while position < len(data):
        element_type, size = tag.unpack_from(data, position)
        if element_type != _COMPRESSED:
            return False
        position += tag.size + size
    return position > _HEADER
