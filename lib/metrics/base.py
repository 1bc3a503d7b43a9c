"""The interface of metrics: how predictions are scored, plotted and stored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from yacs.config import CfgNode

from lib.dataset import PoseDataset, Skeleton
from lib.dataset.predictions import Predictions
from lib.dataset.records import column
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import atomic_write
from lib.utils.text import markdown_table


def relative_errors(
    predicted: np.ndarray, joints: np.ndarray, annotated: np.ndarray, length: np.ndarray
) -> np.ndarray:
    """Return distances of joints [N, J, 2] in units of `length`, [N, 1] or [N, J]; float64 [N, J].

    nan if a joint is not `annotated` [N, J], so that comparisons are false; inf if a prediction is
    not a number.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.linalg.norm(np.asarray(predicted, np.float64) - joints, axis=-1) / length
    errors[np.isnan(errors)] = np.inf
    return np.where(annotated, errors, np.nan)


class Metric(ABC):
    """Scores predictions for a data set, without state.

    `primary` is the score of `evaluate` by which training selects the best weights. `plotted` are
    the scores of training curves, the primary first, each with its axis label.
    """

    name: ClassVar[str]  # in tables and logs
    needs: ClassVar[str] = "an annotated joint"  # of a set, as of `can_score`
    primary: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    plotted: ClassVar[Mapping[str, str]]
    digits: ClassVar[int] = 2  # of scores in reports
    error_unit: ClassVar[str]  # of `errors`
    max_error: ClassVar[float]  # in plots, in that unit
    threshold: ClassVar[float]  # of `errors`, up to which plots count a joint as correct

    def build(self, cfg: CfgNode) -> "Metric":
        """Return the metric with its options in a configuration; by default it has none."""
        return self

    def can_score(self, dataset: PoseDataset) -> bool:
        """Whether the set has the annotation that the metric needs; UserError if it is damaged."""
        return bool(column(dataset.records, "visible").any())

    @abstractmethod
    def evaluate(self, predictions: Predictions, dataset: PoseDataset) -> dict[str, float]:
        """Return the scores by name; nan if there is no annotation for a score."""

    @abstractmethod
    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        """Return the distance of each joint from its annotation, float64 [N, J], in `error_unit`.

        nan if a joint is not annotated.
        """

    def contributions(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        """Return each person's contribution to the primary score, float64 [N, 2].

        The score is the sum of the first column over the sum of the second, also for a resample of
        people, as in a bootstrap. Here it is the percentage of joints within `threshold`.
        """
        *_, counted = self.parts(dataset.skeleton).values()
        errors = self.errors(predictions, dataset)[:, counted]
        correct = 100.0 * (errors <= self.threshold).sum(axis=1)
        return np.stack([correct, (~np.isnan(errors)).sum(axis=1)], axis=1)

    def parts(self, skeleton: Skeleton) -> dict[str, list[int]]:
        """Return the groups of joints that plots show; the last is all joints that count."""
        return {"All joints": list(range(skeleton.num_joints))}

    def curves(
        self, predictions: Predictions, dataset: PoseDataset, thresholds: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the percentage of joints with an error up to each threshold, [T] for each part."""
        errors = self.errors(predictions, dataset)
        curves = {}
        for part, joints in self.parts(dataset.skeleton).items():
            annotated = errors[:, joints][~np.isnan(errors[:, joints])]
            correct = (annotated <= thresholds[:, None]).sum(axis=1)
            curves[part] = 100 * correct / max(1, len(annotated))
        return curves

    def table(self, scores: Mapping[str, Mapping[str, float]]) -> str:
        """Return scores by model as a Markdown table, as the HRNet family prints them."""
        columns = ["Arch", *next(iter(scores.values()))]
        rows = ([name, *(f"{value:.3f}" for value in row.values())] for name, row in scores.items())
        return markdown_table(columns, rows)

    def is_better(self, score: float, best: float | None) -> bool:
        """Whether a primary score is better than the best so far (None at first); false for nan."""
        if best is None:
            return score == score
        return score > best if self.higher_is_better else score < best

    def save_predictions(
        self, folder: Path, predictions: Predictions, dataset: PoseDataset
    ) -> Path:
        """Write predictions in the format of the data set; return the file."""
        path = folder / "predictions.npz"
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, joints=predictions.joints, scores=predictions.scores)
        return path

    def load_predictions(self, folder: Path, dataset: PoseDataset) -> Predictions:
        """Read the file of `save_predictions`; UserError if it has other people."""
        path = folder / "predictions.npz"
        reading = as_user_error(f"{path}: cannot read the predictions")
        with reading, np.load(path, allow_pickle=False) as content:
            predictions = Predictions(content["joints"], content["scores"])
        shape = (len(dataset), dataset.skeleton.num_joints, 2)
        if predictions.joints.shape != shape:
            raise UserError(f"{path}: joints are {predictions.joints.shape}, not {shape}")
        return predictions
