"""Annotation in MPII's layout is read as HRNet does, and rejected if it is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.dataset.mpii import read_mpii, read_records
from lib.dataset.records import Boxes
from lib.dataset.skeleton import MPII


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_record_is_read_as_hrnet_does(tmp_path: Path, person: dict[str, Any]) -> None:
    (record,) = read_records(write(tmp_path / "train.json", [person]), 16)
    assert record.image == "a.jpg"
    np.testing.assert_allclose(record.center, (100, 60 + 15 * 0.4))
    np.testing.assert_allclose(record.scale, (0.5, 0.5))
    np.testing.assert_array_equal(record.joints[:2], [(70, 30), (74, 33)])
    np.testing.assert_array_equal(record.visible, [0] + [1] * 15)
    assert record.joints.dtype == record.visible.dtype == np.float32


def test_a_set_without_annotation_has_no_visible_joint(
    tmp_path: Path, person: dict[str, Any], one_line: Callable[..., None]
) -> None:
    entry = {key: person[key] for key in ("image", "center", "scale")}
    path = write(tmp_path / "test.json", [entry])
    (record,) = read_records(path, 16, with_joints=False)
    assert record.joints.shape == (16, 2)
    assert not record.visible.any()
    one_line(lambda: read_records(path, 16), "test.json", "record 0", "joints")


@pytest.mark.parametrize(
    ("content", "word"),
    [("{", "JSON"), ("", "JSON"), ("[" * 100000, "JSON"), ({}, "list"), ([], "empty")],
)
def test_annotation_must_be_a_list_of_people(
    tmp_path: Path, content: Any, word: str, one_line: Callable[..., None]
) -> None:
    path = write(tmp_path / "train.json", content)
    one_line(lambda: read_records(path, 16), str(path), word)


def test_annotation_must_be_text(tmp_path: Path, one_line: Callable[..., None]) -> None:
    (tmp_path / "train.json").write_bytes(b"\xff\xfe\xfa")
    one_line(lambda: read_records(tmp_path / "train.json", 16), "train.json", "JSON")


def test_a_missing_file_is_named(tmp_path: Path, one_line: Callable[..., None]) -> None:
    one_line(lambda: read_records(tmp_path / "train.json", 16), "train.json")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"image": None}, "image"),
        ({"image": ""}, "image"),
        ({"image": "a\nb.jpg"}, "image"),
        ({"image": "\u2028"}, "image"),
        ({"image": "\ud800.jpg"}, "image"),
        ({"image": 256 * "x"}, "image"),
        ({"image": 500 * ["x"]}, "image"),
        ({"center": None}, "center"),
        ({"center": [-1, -1]}, "no box"),
        ({"center": ["a", 1]}, "center"),
        ({"center": [1, 10**400]}, "center"),
        ({"scale": 0}, "no box"),
        ({"scale": -1}, "no box"),
        ({"scale": float("inf")}, "scale"),
        ({"joints": [[1, 2]] * 15}, "joints"),
        ({"joints": [[1, 2, 3]] * 16}, "joints"),
        ({"joints": [[1, 2]] * 15 + [[1]]}, "joints"),
        ({"joints": [[1, float("nan")]] * 16}, "joints"),
        ({"joints": [[1, 2]] * 15 + [[1, None]]}, "joints"),
        ({"joints": [[1, 2]] * 15 + [None]}, "joints"),
        ({"joints": None, "joints_vis": [0] * 16}, "joints"),
        ({"joints_vis": [None] * 16}, "joints_vis"),
        ({"center": [None, 1]}, "center"),
        ({"scale": None}, "scale"),
        ({"joints_vis": [1] * 17}, "joints_vis"),
    ],
)
def test_a_wrong_record_is_named(
    tmp_path: Path, change: dict, word: str, person: dict[str, Any], one_line: Callable[..., None]
) -> None:
    path = write(tmp_path / "train.json", [person, {**person, **change}])
    one_line(lambda: read_records(path, 16), str(path), "record 1", word)


@pytest.mark.parametrize("key", ["image", "center", "scale", "joints", "joints_vis"])
def test_a_missing_field_is_named(
    tmp_path: Path, key: str, person: dict[str, Any], one_line: Callable[..., None]
) -> None:
    incomplete = {k: v for k, v in person.items() if k != key}
    path = write(tmp_path / "train.json", [person, incomplete, 7])
    one_line(lambda: read_records(path, 16), "record 1", f"`{key}`")


@pytest.mark.parametrize(
    "point",
    [[None, None], [float("nan")] * 2, [float("inf"), 3], [None, 3], [1e9, 0], None, []],
    ids=repr,
)
def test_joints_that_are_not_annotated_need_no_coordinates(
    tmp_path: Path, person: dict[str, Any], point: Any
) -> None:
    changed = {**person, "joints": [point, *person["joints"][1:]]}
    path = write(tmp_path / "train.json", [person, changed])
    plain, record = read_records(path, 16)
    np.testing.assert_array_equal(record.visible, plain.visible)
    np.testing.assert_array_equal(record.joints[1:], plain.joints[1:])
    assert np.isfinite(record.joints).all()


def test_a_missing_set_names_the_next_step(tmp_path: Path, one_line: Callable[..., None]) -> None:
    words = ("annot/train.json", "data/README.md", "python tools/make_synthetic.py", "make demo")
    one_line(lambda: read_mpii(tmp_path, "train", MPII, Boxes((64, 64))), *words)
