"""The people with the largest errors come first, by the errors of the metric."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lib.analysis.runs.read import Evaluation, Run, read_run
from lib.analysis.runs.worst import worst_people
from lib.dataset import PoseDataset
from lib.dataset.predictions import Predictions
from lib.metrics.base import Metric
from lib.utils.errors import UserError


class Given(Metric):
    """Errors that a test chooses; the last joint does not count."""

    error_unit = name = "cm"

    def __init__(self, errors: np.ndarray) -> None:
        self._errors = errors

    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        return self._errors

    def parts(self, skeleton: object) -> dict[str, list[int]]:
        return {"one": [15], "all": list(range(15))}

    def evaluate(self, predictions: Predictions, dataset: PoseDataset) -> dict[str, float]:
        raise NotImplementedError

    contributions = evaluate


@pytest.fixture
def tested(make_run: Callable[..., Path]) -> Run:
    return read_run(make_run())


def people_of(table: str) -> list[int]:
    return [int(line.split("|")[1]) for line in table.splitlines()[2:]]


def test_order_is_that_of_the_mean_over_annotated_joints_that_count(tested: Run) -> None:
    errors = np.ones((6, 16))
    errors[1, 15] = 99  # does not count
    errors[2, :14] = np.nan  # a mean of one joint
    errors[2, 14] = 3
    errors[3] = np.nan  # nobody knows
    errors[4, 0] = 16  # a mean of 2
    errors[5, 3] = np.inf  # no prediction
    sheet, table = worst_people(tested.evaluation, Given(errors), 4)
    assert people_of(table) == [5, 2, 4, 0]
    assert "| 2 | valid_000002.jpg | 3.000 |" in table
    assert people_of(worst_people(tested.evaluation, Given(errors), 99)[1]) == [5, 2, 4, 0, 1]
    assert sheet.shape[0] < sheet.shape[1]  # one row of four pairs


def test_sheet_shows_annotation_and_prediction_of_each(tested: Run) -> None:
    errors = np.arange(96.0).reshape(6, 16)
    dataset, predictions = tested.evaluation.dataset, tested.evaluation.predictions
    both, _ = worst_people(tested.evaluation, Given(errors), 2)
    one, _ = worst_people(tested.evaluation, Given(errors), 1)
    np.testing.assert_array_equal(both[:, : one.shape[1]], one)
    exact = np.stack([record.joints for record in dataset.records]).astype(np.float64)
    equal = Evaluation(dataclasses.replace(predictions, joints=exact), dataset)
    sheet, _ = worst_people(equal, Given(errors), 1)
    shown = dataset.records[5].visible > 0
    left, right = sheet[:, :256].astype(int), sheet[:, 260:].astype(int)
    assert shown.all()
    assert np.abs(left - right).max() <= 40  # the same joints, up to rounding
    assert np.abs(left - one[:, 260:]).max() > 100


def test_nobody_with_a_joint_that_counts_is_an_error(tested: Run) -> None:
    with pytest.raises(UserError, match=r"valid\.json: nobody has a joint"):
        worst_people(tested.evaluation, Given(np.full((6, 16), np.nan)), 3)
