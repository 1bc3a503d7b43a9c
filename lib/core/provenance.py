"""What a result was made with: versions, the state of the code, the data."""

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from lib.dataset import annotation_path
from lib.dataset.images import ImageSource
from lib.dataset.mpii import PoseDataset
from lib.utils.errors import UserError

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python")


def provenance(cfg: CfgNode, dataset: PoseDataset, image_set: str) -> dict[str, Any]:
    """What a run on `dataset`, of `image_set`, is made with; plain values only."""
    return {
        "config": cfg.dump(),
        "seed": cfg.SEED,
        "versions": _versions(),
        "git": _git_state(Path(__file__).parent),
        "data": {
            "set": image_set,
            "people": len(dataset),
            "fingerprint": fingerprint(
                annotation_path(cfg, image_set),
                sorted({record.image for record in dataset.records}),
                dataset.images,
            ),
        },
    }


def fingerprint(annotation: Path, names: list[str], images: ImageSource) -> str:
    """SHA-256 of the annotation file and of each picture's name and size (in a zip, its CRC).

    A picture that is not there counts as such: it is an error when it is read, not here.
    """
    found = hashlib.sha256(annotation.read_bytes())
    for name in names:
        try:
            mark = images.mark(name)
        except UserError:
            mark = -1
        found.update(f"{name} {mark}\n".encode())
    return found.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # OpenCV comes under several names
            versions[name] = "unknown"
    return versions


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the code and whether files differ from it; None outside a git checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
