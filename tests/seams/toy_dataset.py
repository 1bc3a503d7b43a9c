"""A data set with five joints and its own metric: the example in CONTRIBUTING.md."""

from collections.abc import Mapping

import numpy as np

from lib.dataset import DatasetSpec, PoseDataset, Skeleton
from lib.dataset.mpii import read_mpii
from lib.dataset.predictions import Predictions
from lib.metrics import Metric

STAR = Skeleton(
    name="star",
    names=("head", "left_hand", "right_hand", "left_foot", "right_foot"),
    limbs=((0, 1), (0, 2), (0, 3), (0, 4)),
    mirrors=((1, 2), (3, 4)),
    upper_body=(0, 1, 2),
)


class MeanError(Metric):
    """Mean distance from the annotation, in pixels."""

    name = "mean error"
    primary = "error"
    higher_is_better = False
    plotted: Mapping[str, str] = {"error": "mean error (pixels)"}
    error_unit = "pixels"
    max_error = 30.0
    threshold = 5.0

    def evaluate(self, predictions: Predictions, dataset: PoseDataset) -> dict[str, float]:
        total, count = self.contributions(predictions, dataset).sum(axis=0)
        by_joint = np.nanmean(self.errors(predictions, dataset), axis=0)
        return {"error": total / count, **dict(zip(STAR.names, by_joint.tolist(), strict=True))}

    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        joints = np.stack([record.joints for record in dataset.records])
        visible = np.stack([record.visible for record in dataset.records])
        distances = np.linalg.norm(predictions.joints - joints, axis=-1)
        return np.where(visible > 0, distances, np.nan)

    def contributions(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        errors = self.errors(predictions, dataset)
        return np.stack([np.nansum(errors, axis=1), (~np.isnan(errors)).sum(axis=1)], axis=1)


# The files have MPII's layout here; for another layout write a `Reader`.
TOY_DATASET = DatasetSpec(read=read_mpii, skeleton="star", metric="mean_error")
