"""PCK: the share of joints within a share of the box, for joints without OKS's sigmas."""

from types import MappingProxyType

import numpy as np

from lib.dataset import PoseDataset
from lib.dataset.predictions import Predictions
from lib.dataset.records import column
from lib.metrics.base import Metric, relative_errors

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
        curve = self.curves(predictions, dataset, np.array(THRESHOLDS))["All joints"]
        return {f"PCK@{t}": float(score) for t, score in zip(THRESHOLDS, curve, strict=True)}

    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        """Return distances in longer sides of the annotated box, [N, J]; inf if not a number."""
        joints, visible, side = (
            column(dataset.records, name) for name in ("joints", "visible", "side")
        )
        return relative_errors(predictions.joints, joints, visible > 0, side[:, None])
