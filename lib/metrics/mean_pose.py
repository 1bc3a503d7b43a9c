"""A baseline for every network: a prediction without the image."""

from collections.abc import Sequence

import numpy as np

from lib.dataset.predictions import Predictions
from lib.dataset.records import Record


def mean_pose(train: Sequence[Record], test: Sequence[Record]) -> Predictions:
    """Predict the mean pose of `train` for everyone in `test`.

    The mean is taken over annotated joints, relative to each person's box.
    """
    center, scale, joints = _boxes_and_joints(train)
    annotated = np.stack([record.visible for record in train])[..., None]
    mean = ((joints - center) / scale * annotated).sum(axis=0)
    mean /= np.maximum(annotated.sum(axis=0), 1)
    center, scale, _ = _boxes_and_joints(test)
    predicted = mean * scale + center
    return Predictions(predicted, np.ones(predicted.shape[:2]))


def _boxes_and_joints(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centers [N, 1, 2], scales [N, 1, 2] and joints [N, J, 2]."""
    center = np.stack([record.center for record in records])[:, None]
    scale = np.stack([record.scale for record in records])[:, None]
    return center, scale, np.stack([record.joints for record in records]).astype(np.float64)
