"""PCKh against plain loops and on the real annotation; its files."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from lib.metrics.pckh import (
    JOINTS,
    PARTS,
    PCKh,
    load_gt,
    load_predictions,
    normalised_errors,
    pckh,
    pckh_by_part,
)
from lib.utils.errors import UserError

COLUMNS = [*PARTS, "Mean", "Mean@0.1", "Mean@0.11"]


def make_gt(people: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    """Annotation of random people; about a fifth of the joints are missing."""
    random = np.random.default_rng(seed)
    low = random.uniform(0, 500, (2, people))
    return {
        "dataset_joints": np.array([JOINTS], dtype=object),
        "jnt_missing": (random.random((16, people)) < 0.2).astype(np.uint8),
        "pos_gt_src": random.uniform(0, 900, (16, 2, people)),
        "headboxes_src": np.stack((low, low + random.uniform(20, 90, (2, people)))),
    }


def truth_of(gt: dict[str, np.ndarray]) -> np.ndarray:
    """Predictions without error, [N, 16, 2]."""
    return np.transpose(gt["pos_gt_src"], (2, 0, 1)).astype(np.float64)


def noisy(gt: dict[str, np.ndarray], pixels: float, seed: int = 1) -> np.ndarray:
    truth = truth_of(gt)
    return truth + pixels * np.random.default_rng(seed).standard_normal(truth.shape)


def pckh_by_loops(pred: np.ndarray, gt: dict[str, np.ndarray]) -> dict[str, float]:
    """PCKh by its definition, one joint of one person at a time."""

    def count(joint: int, threshold: float) -> tuple[int, int]:
        hits = annotated = 0
        for person in range(len(pred)):
            if gt["jnt_missing"][joint, person]:
                continue
            annotated += 1
            (left, top), (right, bottom) = gt["headboxes_src"][:, :, person].tolist()
            x, y = gt["pos_gt_src"][joint, :, person].tolist()
            error = math.hypot(pred[person, joint, 0] - x, pred[person, joint, 1] - y)
            hits += error <= threshold * 0.6 * math.hypot(right - left, bottom - top)
        return hits, annotated

    def percent(*joints: int) -> float:
        shares = [count(joint, 0.5) for joint in joints]
        return sum(100 * hits / annotated for hits, annotated in shares) / len(joints)

    def mean(threshold: float) -> float:
        counts = [count(joint, threshold) for joint in range(16) if joint not in (6, 7)]
        return 100 * sum(hits for hits, _ in counts) / sum(annotated for _, annotated in counts)

    return {
        "Head": percent(9),
        "Shoulder": percent(12, 13),
        "Elbow": percent(11, 14),
        "Wrist": percent(10, 15),
        "Hip": percent(2, 3),
        "Knee": percent(1, 4),
        "Ankle": percent(0, 5),
        "Mean": mean(0.5),
        "Mean@0.1": mean(0.1),
        "Mean@0.11": mean(0.11),
    }


@pytest.mark.parametrize("pixels", [3.0, 10.0, 30.0])
def test_pckh_equals_plain_loops(pixels: float) -> None:
    gt = make_gt()
    # Some joints are harder than others, so that every column has another value.
    pred = truth_of(gt) + (noisy(gt, pixels) - truth_of(gt)) * np.linspace(0.5, 2, 16)[:, None]
    scores = pckh(pred, gt)
    assert list(scores) == COLUMNS
    assert scores == pytest.approx(pckh_by_loops(pred, gt))


def test_pckh_of_the_real_annotation(shared: Path) -> None:
    gt = load_gt(shared / "data/mpii/annot/gt_valid.mat")
    assert pckh(truth_of(gt), gt) == dict.fromkeys(COLUMNS, pytest.approx(100))
    pred = noisy(gt, 15)
    scores = pckh(pred, gt)
    assert scores == pytest.approx(pckh_by_loops(pred, gt))
    assert 10 < scores["Mean"] < 99
    # More noise, lower scores; a wider threshold, higher ones.
    worse = pckh(noisy(gt, 30), gt)
    assert all(worse[column] < scores[column] for column in COLUMNS)
    curves = pckh_by_part(pred, gt, np.arange(0, 0.51, 0.01).tolist())
    assert list(curves) == COLUMNS[:8]
    assert all(len(curve) == 51 and (np.diff(curve) >= 0).all() for curve in curves.values())


def test_joints_without_annotation_do_not_count() -> None:
    gt = make_gt()
    pred, elsewhere = noisy(gt, 10), noisy(gt, 10)
    elsewhere[gt["jnt_missing"].T == 1] = np.nan
    assert pckh(elsewhere, gt) == pckh(pred, gt)
    elsewhere[:, 6:8] += 1e6  # pelvis and thorax are in no column
    assert pckh(elsewhere, gt) == pckh(pred, gt)


def test_a_joint_that_is_never_annotated_affects_only_its_column() -> None:
    gt = make_gt()
    gt["jnt_missing"][9] = 1
    scores = pckh(truth_of(gt), gt)
    assert math.isnan(scores.pop("Head"))
    assert scores == pytest.approx(dict.fromkeys(COLUMNS[1:], 100))
    gt["jnt_missing"][:] = 1
    assert all(math.isnan(score) for score in pckh(truth_of(gt), gt).values())


def test_the_mean_weighs_joints_by_their_number_of_annotations() -> None:
    gt = make_gt(people=10)
    gt["jnt_missing"][:] = 1
    gt["jnt_missing"][9] = 0  # ten heads, all correct
    gt["jnt_missing"][0, :5] = 0  # five ankles, all wrong
    pred = truth_of(gt)
    pred[:, 0] += 1e4
    assert pckh(pred, gt)["Mean"] == pytest.approx(100 * 10 / 15)


def test_errors_are_in_head_sizes_and_nan_where_not_annotated() -> None:
    gt = make_gt(people=2)
    gt["jnt_missing"][:] = 0
    gt["jnt_missing"][3, 1] = 1
    # Integer boxes must not wrap around if one corner is less than the other.
    gt["headboxes_src"] = np.array([[[10, 50], [10, 80]], [[40, 20], [50, 40]]], dtype=np.uint8)
    pred = truth_of(gt)
    pred[:, 0, 0] += 15  # of a diagonal of 50: half of its 0.6
    pred[1, 2] = np.nan  # counts as wrong, not as missing
    errors = normalised_errors(pred, gt)
    assert errors.shape == (2, 16)
    assert errors[:, 0] == pytest.approx(0.5)
    assert np.isnan(errors[1, 3])
    assert errors[1, 2] == np.inf
    assert np.isnan(errors).sum() == 1
    assert (errors > 0).sum() == 3


def test_an_error_on_the_threshold_counts() -> None:
    gt = make_gt(people=1)
    gt["jnt_missing"][:] = 0
    gt["pos_gt_src"][:] = 100
    gt["headboxes_src"] = np.array([[[0], [0]], [[30], [40]]])
    pred = truth_of(gt)
    pred[..., 0] += 15
    assert pckh(pred, gt)["Mean"] == 100
    pred[..., 0] += 1e-9
    assert pckh(pred, gt)["Mean"] == 0


def test_the_table_has_a_value_in_every_column() -> None:
    table = PCKh().table({"tokenpose": {"Head": 97.12345, "Mean": float("nan")}})
    assert table.splitlines() == [
        "| Arch | Head | Mean |",
        "| --- | --- | --- |",
        "| tokenpose | 97.123 | nan |",
    ]


def test_predictions_are_read_without_their_scores(tmp_path: Path) -> None:
    pred = noisy(make_gt(), 5)
    savemat(tmp_path / "pred.mat", {"preds": np.concatenate((pred, pred[..., :1]), axis=-1)})
    np.testing.assert_array_equal(load_predictions(tmp_path / "pred.mat", people=30), pred)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pred: {"predictions": pred}, "`preds` is missing; the file holds predictions"),
        (lambda pred: {"preds": pred[:-1]}, "shape (30, 16, 2) or (30, 16, 3)"),
        (lambda pred: {"preds": pred[:, :15]}, "not float64 (30, 15, 2)"),
        (lambda pred: {"preds": pred.astype(object)}, "must be numbers"),
        (lambda pred: {"preds": np.where(pred == pred[4, 2], np.nan, pred)}, "person 4, joint 2"),
    ],
)
def test_wrong_predictions_are_named(tmp_path: Path, change: Callable, message: str) -> None:
    path = tmp_path / "pred.mat"
    savemat(path, change(noisy(make_gt(), 5)))
    with pytest.raises(UserError) as caught:
        load_predictions(path, people=30)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_gt_src": None}, "`pos_gt_src` is missing"),
        ({"headboxes_src": np.zeros((2, 2, 4))}, "`headboxes_src` must be numbers of shape"),
        ({"jnt_missing": np.zeros((14, 30))}, "`jnt_missing` must be numbers of shape"),
        ({"dataset_joints": np.array([JOINTS[::-1]], dtype=object)}, "entry 0"),
        ({"dataset_joints": np.array([JOINTS[:4]], dtype=object)}, "entry 4"),
    ],
)
def test_wrong_annotation_is_named(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    path = tmp_path / "gt.mat"
    gt = make_gt() | change
    savemat(path, {key: array for key, array in gt.items() if array is not None})
    with pytest.raises(UserError) as caught:
        load_gt(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_joints_that_are_not_annotated_need_no_prediction(tmp_path: Path) -> None:
    gt, pred, path = make_gt(), noisy(make_gt(), 5), tmp_path / "pred.mat"
    gt["jnt_missing"][2, 4] = 1
    annotated = gt["jnt_missing"].T == 0
    scores = pckh(pred, gt)
    pred[4, 2] = np.nan
    savemat(path, {"preds": pred})
    assert pckh(load_predictions(path, 30, annotated), gt) == scores
    with pytest.raises(UserError, match="person 4, joint 2"):
        load_predictions(path, 30)
    pred[5, 2] = np.inf
    savemat(path, {"preds": pred})
    with pytest.raises(UserError, match="person 5, joint 2"):
        load_predictions(path, 30, annotated)


@pytest.mark.parametrize("box", [7.0, np.nan])
def test_only_people_with_annotated_joints_need_a_head(tmp_path: Path, box: float) -> None:
    gt, path = make_gt(), tmp_path / "gt.mat"
    gt["jnt_missing"][:, 4] = 1
    gt["pos_gt_src"][:, :, 4] = np.nan
    pred = noisy(make_gt(), 5)
    scores = pckh(pred, gt)
    gt["headboxes_src"][:, :, 4] = box
    savemat(path, gt)
    assert pckh(pred, load_gt(path)) == scores
    gt["jnt_missing"][3, 4], gt["pos_gt_src"][3, :, 4] = 0, 5
    savemat(path, gt)
    with pytest.raises(UserError, match="head box of person 4"):
        load_gt(path)


@pytest.mark.parametrize("load", [load_gt, load_predictions])
@pytest.mark.parametrize("keep", [0, 3, 200, 3000])
def test_missing_and_broken_files_are_named(tmp_path: Path, load: Callable, keep: int) -> None:
    with pytest.raises(UserError, match=r"absent\.mat: no such file"):
        load(tmp_path / "absent.mat")
    path = tmp_path / "broken.mat"
    savemat(path, make_gt() | {"preds": noisy(make_gt(), 5)}, do_compression=True)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"broken\.mat: "):
        load(path)
