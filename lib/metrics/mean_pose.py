"""A baseline for every network: a prediction without the image."""

from collections.abc import Sequence

import numpy as np

from lib.dataset.predictions import Predictions
from lib.dataset.records import Record, column


def mean_pose(train: Sequence[Record], test: Sequence[Record]) -> Predictions:
    """Predict the mean pose of `train` for everyone in `test`.

    The mean is taken over annotated joints, relative to each person's box.
    """
    names = ("center", "scale", "joints", "visible")
    center, scale, joints, visible = (column(train, name) for name in names)
    relative = (joints - center[:, None]) / scale[:, None] * visible[..., None]
    mean = relative.sum(axis=0) / np.maximum(visible.sum(axis=0), 1)[:, None]
    center, scale = column(test, "center"), column(test, "scale")
    predicted = mean * scale[:, None] + center[:, None]
    return Predictions(predicted, np.ones(predicted.shape[:2]))
