"""Where a result comes from: configuration, versions, commit, data."""

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
from yacs.config import CfgNode

from lib.dataset import PoseDataset
from lib.utils.errors import UserError

_PACKAGES = ("torch", "torchvision", "timm", "numpy")


def provenance(cfg: CfgNode, dataset: PoseDataset, image_set: str) -> dict[str, Any]:
    """Describe a run on `dataset`, the set `image_set`, in plain values."""
    return {
        "config": cfg.dump(),
        "versions": _versions(),
        "git": _git_state(Path(__file__).parent),
        "data": {
            "set": image_set,
            "people": len(dataset),
            "fingerprint": data_fingerprint(dataset, cfg.DATASET.SKIP_BAD_IMAGES),
        },
    }


def data_fingerprint(dataset: PoseDataset, missing: int = 0) -> str:
    """SHA-256 of the annotation file and of each image's name and size (in a zip, its CRC).

    UserError if the images of more people than `missing` do not exist.
    """
    digest, names = hashlib.sha256(dataset.annotation.path.read_bytes()), dataset.annotation.images
    errors = {}
    for name in names:
        try:
            image = dataset.images.fingerprint(name)
        except UserError as error:
            image, errors[name] = -1, str(error)
        digest.update(f"{name} {image}\n".encode())
    if sum(record.image in errors for record in dataset.records) > missing:
        first, *_ = errors.values()
        raise UserError(f"{first}; missing images: {len(errors)} of {len(names)}")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    # Not by its package, since OpenCV has several names.
    versions = {"python": platform.python_version(), "opencv-python": cv2.__version__}
    return versions | {name: metadata.version(name) for name in _PACKAGES}


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the code and whether files differ from it; None outside a git checkout."""
    git = ["git", "-C", str(folder)]
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=10, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "changed": bool(changes.stdout)}
