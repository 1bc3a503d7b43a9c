"""Skeletons from files: what is read, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib.config import load_cfg
from lib.dataset import build_skeleton
from lib.dataset.skeleton_file import read_skeleton
from lib.utils.errors import UserError

BIRD: dict[str, Any] = {
    "names": ["beak", "tail", "left_wing", "right_wing"],
    "limbs": [["beak", "tail"], ["beak", "left_wing"], ["beak", "right_wing"]],
    "mirrors": [["left_wing", "right_wing"]],
    "upper_body": ["beak", "left_wing", "right_wing"],
    "sigmas": [0.03, 0.05, 0.08, 0.08],
}


def write(folder: Path, changes: dict[str, Any], name: str = "bird.yaml") -> Path:
    content = {key: value for key, value in {**BIRD, **changes}.items() if value is not ...}
    path = folder / name
    path.write_text(yaml.safe_dump(content) if path.suffix == ".yaml" else json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["bird.yaml", "bird.json"])
def test_fields(tmp_path: Path, name: str) -> None:
    skeleton = read_skeleton(write(tmp_path, {}, name))
    assert skeleton.limbs == ((0, 1), (0, 2), (0, 3))
    assert skeleton.mirrors == ((2, 3),)
    assert skeleton.upper_body == (0, 2, 3)
    assert skeleton.sigmas == (0.03, 0.05, 0.08, 0.08)
    assert skeleton.joint_mask(0).sum() == 4 + 2


def test_names_alone_are_enough_and_sides_are_pairs(tmp_path: Path) -> None:
    rest = dict.fromkeys(["limbs", "mirrors", "upper_body", "sigmas"], ...)
    skeleton = read_skeleton(write(tmp_path, rest))
    assert skeleton.mirrors == ((2, 3),)
    assert skeleton.flip_order == [0, 1, 3, 2]
    assert skeleton.sigmas == ()
    assert skeleton.joint_mask(5).sum() == 4 + 2
    assert read_skeleton(write(tmp_path, rest | {"mirrors": []})).mirrors == ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"limbs": [["beak", "foot"]]}, "`limbs`: 'foot' is not among `names`"),
        ({"limbs": [[1, 2]]}, "`limbs`: 1 is not among `names`"),
        ({"limbs": [["beak", "beak"]]}, "must be lists of two joints"),
        ({"limbs": [["beak", "tail", "left_wing"]]}, "must be lists of two joints"),
        ({"limbs": ["beak"]}, "must be lists of two joints"),
        ({"limbs": "beak"}, "must be lists of two joints"),
        ({"limbs": None}, "`limbs`: None is not among"),
        ({"limbs": {"beak": "tail"}}, "`limbs`"),
        ({"limbs": [[["beak"], "tail"]]}, "`limbs`"),
        ({"mirrors": [["left_wing", "right_wing"], ["tail", "left_wing"]]}, "left_wing in two"),
        ({"mirrors": [["left_wing", "left_wing"]]}, "must be lists of two joints"),
        ({"upper_body": ["head"]}, "`upper_body`: 'head' is not among `names`"),
        ({"upper_body": {"beak": 1}}, "`upper_body`: {'beak': 1} is not among"),
        ({"sigmas": [0.1, 0.1]}, "`sigmas` must be 4 numbers above 0"),
        ({"sigmas": [0.1, 0.1, 0.1, 0]}, "`sigmas` must be 4"),
        ({"sigmas": [0.1, 0.1, 0.1, float("nan")]}, "`sigmas` must be 4"),
        ({"sigmas": [0.1, 0.1, 0.1, True]}, "`sigmas` must be 4"),
        ({"sigmas": 0.1}, "`sigmas` must be 4"),
        ({"sigmas": {"beak": 0.1}}, "`sigmas` must be 4"),
        ({"names": ["beak", "tail", "tail"]}, "`names` has tail twice"),
        ({"names": ["beak", True]}, "`names` must be a list of texts"),
        ({"names": []}, "`names` must be"),
        ({"names": "beak"}, "`names` must be"),
        ({"names": ["beak", " tail"]}, "`names` must be"),
        ({"names": ...}, "a skeleton has `names`"),
        ({"mirror": []}, "a skeleton has `names` and, optionally, limbs, mirrors"),
    ],
)
@pytest.mark.parametrize("name", ["bird.yaml", "bird.json"])
def test_a_bad_skeleton_is_one_line_with_the_file(
    tmp_path: Path, changes: dict[str, Any], text: str, name: str
) -> None:
    path = write(tmp_path, changes, name)
    with pytest.raises(UserError) as caught:
        read_skeleton(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '"bird"', "\xff\x00", "null"])
@pytest.mark.parametrize("name", ["bird.yaml", "bird.json"])
def test_another_file_is_one_line(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=f"{name}: "):
        read_skeleton(path)
    with pytest.raises(UserError, match=r"No such file"):
        read_skeleton(tmp_path / "missing" / name)


def test_the_key_names_a_file(tmp_path: Path) -> None:
    write(tmp_path, {})
    yaml_file = tmp_path / "run.yaml"
    yaml_file.write_text(f"DATA_DIR: {tmp_path}\nDATASET:\n  SKELETON: bird.yaml\n")
    assert build_skeleton(load_cfg(yaml_file, ["MODEL.NUM_JOINTS", 4])).name == "bird"
    with pytest.raises(UserError, match=r"NUM_JOINTS = 16: the skeleton bird.yaml has 4 joints"):
        build_skeleton(load_cfg(yaml_file))
    with pytest.raises(UserError, match=r"SKELETON = 'bird': must be one of mpii, coco, FILE.yaml"):
        build_skeleton(load_cfg(yaml_file, ["DATASET.SKELETON", "bird"]))
    write(tmp_path, {"upper_body": []})
    options = ["MODEL.NUM_JOINTS", 4, "DATASET.PROB_HALF_BODY", 0.3]
    with pytest.raises(UserError, match=r"PROB_HALF_BODY = 0.3: .*has no `upper_body`"):
        build_skeleton(load_cfg(yaml_file, options))


def test_the_identity_is_of_what_a_network_depends_on(tmp_path: Path) -> None:
    identity = read_skeleton(write(tmp_path, {})).identity
    assert read_skeleton(write(tmp_path, {"sigmas": ...}, "eagle.json")).identity == identity
    for changes in ({"limbs": []}, {"mirrors": []}, {"names": BIRD["names"][::-1]}):
        assert read_skeleton(write(tmp_path, changes)).identity != identity
