"""Properties of every metric: saved predictions load, contributions add up, better and worse."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.config import get_cfg
from lib.dataset import PoseDataset, build_dataset
from lib.dataset.predictions import Predictions
from lib.metrics import METRICS, Metric
from lib.metrics.base import Metric as BaseMetric
from lib.utils.errors import UserError


class MeanError(BaseMetric):
    """A metric with only the required methods; lower is better."""

    name = primary = "error"
    higher_is_better = False
    plotted = {"error": "mean error (pixels)"}  # noqa: RUF012
    error_unit, max_error, threshold = "pixels", 50.0, 10.0

    def evaluate(self, predictions: Predictions, dataset: PoseDataset) -> dict[str, float]:
        return {"error": float(np.nanmean(self.errors(predictions, dataset)))}

    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        joints = np.stack([record.joints for record in dataset.records])
        errors = np.linalg.norm(predictions.joints - joints, axis=2)
        errors[np.stack([record.visible for record in dataset.records]) == 0] = np.nan
        return errors

    def contributions(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        errors = self.errors(predictions, dataset)
        return np.stack([np.nansum(errors, axis=1), (~np.isnan(errors)).sum(axis=1)], axis=1)


ALL = [*METRICS.values(), MeanError()]


@pytest.fixture
def dataset(metric: Metric, people: Path, coco: Path) -> PoseDataset:
    cfg = get_cfg()
    cfg.DATASET.ROOT = str(people)
    if metric.name == "OKS-AP":
        cfg.DATASET.DATASET, cfg.DATASET.ROOT, cfg.MODEL.NUM_JOINTS = "coco", str(coco), 17
        cfg.DATASET.TEST_SET = "val2017"
    return build_dataset(cfg, "test")


def noisy(dataset: PoseDataset, pixels: float) -> Predictions:
    joints = np.stack([record.joints for record in dataset.records]).astype(np.float64)
    joints += pixels * np.random.default_rng(0).standard_normal(joints.shape)
    return Predictions(joints, np.ones(joints.shape[:2]))


@pytest.fixture(params=ALL, ids=lambda metric: metric.name)
def metric(request: pytest.FixtureRequest) -> Iterator[Metric]:
    return request.param


def test_contributions_of_people_add_up_to_the_primary_score(
    metric: Metric, dataset: PoseDataset
) -> None:
    predictions = noisy(dataset, 3)
    total, count = metric.contributions(predictions, dataset).sum(axis=0)
    assert total / count == pytest.approx(metric.evaluate(predictions, dataset)[metric.primary])


def test_less_noise_is_better(metric: Metric, dataset: PoseDataset) -> None:
    good, bad = (
        metric.evaluate(noisy(dataset, pixels), dataset)[metric.primary] for pixels in (1, 9)
    )
    assert metric.is_better(good, bad)
    assert not metric.is_better(bad, good)
    assert not metric.is_better(float("nan"), good)
    assert metric.is_better(bad, None)
    assert not metric.is_better(float("nan"), None)


def test_curves_are_the_share_of_errors_within_each_threshold(
    metric: Metric, dataset: PoseDataset
) -> None:
    predictions, thresholds = noisy(dataset, 3), np.linspace(0, metric.max_error, 9)
    curves = metric.curves(predictions, dataset, thresholds)
    parts = metric.parts(dataset.skeleton)
    assert curves.keys() == parts.keys()
    assert all((np.diff(curve) >= 0).all() for curve in curves.values())
    overall = list(parts)[-1]
    errors = metric.errors(predictions, dataset)[:, parts[overall]]
    annotated = errors[~np.isnan(errors)]
    expected = [100 * (annotated <= threshold).mean() for threshold in thresholds]
    np.testing.assert_allclose(curves[overall], expected)


def test_predictions_are_read_as_they_were_saved(
    metric: Metric, dataset: PoseDataset, tmp_path: Path
) -> None:
    predictions = noisy(dataset, 3)
    metric.save_predictions(tmp_path, predictions, dataset)
    again = metric.load_predictions(tmp_path, dataset)
    np.testing.assert_allclose(again.joints, predictions.joints, atol=1e-9)
    fewer = Predictions(predictions.joints[:-1], predictions.scores[:-1])
    people = replace(dataset.annotation, records=dataset.records[:-1])
    metric.save_predictions(tmp_path, fewer, replace(dataset, annotation=people))
    path = tmp_path / ("pred.mat" if metric.name.startswith("PCKh") else "predictions.npz")
    with pytest.raises(UserError, match=path.name):
        metric.load_predictions(tmp_path, dataset)
    path.write_bytes(b"no predictions")
    with pytest.raises(UserError, match=path.name):
        metric.load_predictions(tmp_path, dataset)
