"""Annotation in MPII's layout is read as HRNet does, and rejected if it is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.dataset.mpii import read_records


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
