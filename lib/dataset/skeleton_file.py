"""Skeletons in files, for joints of one's own."""

import math
from pathlib import Path
from typing import Any

from lib.config.load import read_yaml
from lib.dataset.skeleton import Skeleton
from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import shorten

SUFFIXES = (".yaml", ".yml", ".json")
_KEYS = ("names", "limbs", "mirrors", "upper_body", "sigmas")


def read_skeleton(path: Path) -> Skeleton:
    """Read a skeleton, YAML or JSON: `names` of the joints, and the other fields of `Skeleton`.

    `limbs`, `mirrors` and `upper_body` name joints. Without `mirrors`, left_X and right_X are
    pairs. UserError, one line that names the file, if it is damaged or contradicts itself.
    """
    content = read_json(path) if path.suffix == ".json" else read_yaml(path)
    if not isinstance(content, dict) or not {"names"} <= content.keys() <= set(_KEYS):
        raise UserError(f"{path}: a skeleton has `names` and, optionally, {', '.join(_KEYS[1:])}")
    names = content["names"] if isinstance(content["names"], list) else []
    if not names or not all(isinstance(name, str) and name.strip() == name != "" for name in names):
        raise UserError(f"{path}: `names` must be a list of texts, quoted if they look like others")
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: `names` has {shorten(repeated)} twice")
    sides = [[name, f"right_{name[5:]}"] for name in names if name.startswith("left_")]
    mirrors = content.get("mirrors", [pair for pair in sides if pair[1] in names])
    pairs = _pairs(mirrors, names, f"{path}: `mirrors`")
    paired = [names[joint] for pair in pairs for joint in pair]
    if repeated := next((name for name in paired if paired.count(name) > 1), None):
        raise UserError(f"{path}: `mirrors` has {shorten(repeated)} in two pairs")
    sigmas = content.get("sigmas", [])
    valid = isinstance(sigmas, list) and len(sigmas) in (0, len(names))
    if not valid or not all(type(s) in (int, float) and 0 < s < math.inf for s in sigmas):
        raise UserError(f"{path}: `sigmas` must be {len(names)} numbers above 0, one a joint")
    return Skeleton(
        name=path.stem,
        names=tuple(names),
        limbs=_pairs(content.get("limbs", []), names, f"{path}: `limbs`"),
        mirrors=pairs,
        upper_body=_joints(content.get("upper_body", []), names, f"{path}: `upper_body`"),
        sigmas=tuple(map(float, sigmas)),
    )


def _pairs(value: Any, names: list[str], where: str) -> tuple[tuple[int, int], ...]:
    pairs = [
        _joints(pair, names, where) for pair in (value if isinstance(value, list) else [value])
    ]
    if any(len(pair) != 2 or pair[0] == pair[1] for pair in pairs):
        raise UserError(f"{where} must be lists of two joints: [[A, B], [B, C]]")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _joints(value: Any, names: list[str], where: str) -> tuple[int, ...]:
    """Return joints, by name, as indices."""
    joints = value if isinstance(value, list) else [value]
    if missing := [repr(name) for name in joints if not isinstance(name, str) or name not in names]:
        raise UserError(f"{where}: {shorten(missing[0])} is not among `names`")
    return tuple(map(names.index, joints))
