"""PCK: the share of joints within a share of the box, for joints without OKS's sigmas."""

from types import MappingProxyType

import numpy as np

from lib.dataset import PoseDataset
from lib.dataset.predictions import Predictions
from lib.metrics.base import Metric

THRESHOLDS = (0.05, 0.1, 0.2)  # of the box's longer side


class PCK(Metric):
    """Percent of joints within a share of the longer side of their box (Yang and Ramanan 2013)."""

    name = primary = "PCK@0.1"
    plotted = MappingProxyType({"PCK@0.1": "PCK@0.1 (%)", "PCK@0.05": "PCK@0.05 (%)"})
    error_unit = "longer sides of the box"
    max_error = 0.3
    threshold = 0.1

    def evaluate(self, predictions: Predictions, dataset: PoseDataset) -> dict[str, float]:
        """Return the percentage of all annotated joints, by threshold."""
        errors = self.errors(predictions, dataset)
        annotated = errors[~np.isnan(errors)]
        with np.errstate(invalid="ignore"):
            return {f"PCK@{t}": 100 * np.divide((annotated <= t).sum(), annotated.size)
                    for t in THRESHOLDS}  # fmt: skip

    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        """Return distances in longer sides of the annotated box, [N, J]; inf if not a number."""
        truth, visible = (
            np.stack([getattr(record, name) for record in dataset.records])
            for name in ("joints", "visible")
        )
        sides = np.array([record.side for record in dataset.records])
        errors = np.linalg.norm(predictions.joints - truth, axis=-1) / sides[:, None]
        return np.where(visible > 0, np.nan_to_num(errors, nan=np.inf), np.nan)

    def contributions(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        """Return 100 times the correct joints, and the annotated joints, of each person."""
        errors = self.errors(predictions, dataset)
        correct = 100.0 * (errors <= self.threshold).sum(axis=1)
        return np.stack([correct, (~np.isnan(errors)).sum(axis=1)], axis=1)
