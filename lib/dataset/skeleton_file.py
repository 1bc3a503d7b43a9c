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
    names = content["names"]
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise UserError(f"{path}: `names` must be a list of texts, quoted if they look like others")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: `names` has {shorten(twice)} twice")
    pairs = [[name, f"right_{name[5:]}"] for name in names if name.startswith("left_")]
    mirrors = _pairs(content.get("mirrors", [p for p in pairs if p[1] in names]), names, path)
    joints = [joint for pair in mirrors for joint in pair]
    if shared := next((joint for joint in joints if joints.count(joint) > 1), None):
        raise UserError(f"{path}: `mirrors` has {shorten(names[shared])} in two pairs")
    return Skeleton(
        name=path.stem,
        names=tuple(names),
        limbs=_pairs(content.get("limbs", []), names, path, "limbs"),
        mirrors=mirrors,
        upper_body=_joints(content.get("upper_body", []), names, f"{path}: `upper_body`"),
        sigmas=_read_sigmas(content.get("sigmas", []), len(names), path),
    )


def _pairs(
    value: Any, names: list[str], path: Path, key: str = "mirrors"
) -> tuple[tuple[int, int], ...]:
    where, pairs = f"{path}: `{key}`", []
    for pair in value if isinstance(value, list) else [value]:
        joints = _joints(pair, names, where)
        if len(set(joints)) != 2 or len(joints) != 2:
            raise UserError(f"{where}: {_show(pair)} must be a list of two joints")
        pairs.append((joints[0], joints[1]))
    return tuple(pairs)


def _joints(value: Any, names: list[str], where: str) -> tuple[int, ...]:
    """Return joints by name as indices."""
    joints = value if isinstance(value, list) else [value]
    for name in joints:
        if not isinstance(name, str) or name not in names:
            raise UserError(f"{where}: {_show(name)} is not among `names`; write names of joints")
    return tuple(map(names.index, joints))


def _read_sigmas(value: Any, num_joints: int, path: Path) -> tuple[float, ...]:
    sigmas = value if isinstance(value, list) else [value]
    valid = [type(s) in (int, float) and math.isfinite(s) and s > 0 for s in sigmas]
    if sigmas and (len(sigmas) != num_joints or not all(valid)):
        text = f"{num_joints} numbers above 0, one for each of `names`"
        raise UserError(f"{path}: `sigmas` must be {text}, not {_show(value)}")
    return tuple(map(float, sigmas))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.strip() == value != "" and value.isprintable()


def _show(value: Any) -> str:
    return shorten(repr(value))
