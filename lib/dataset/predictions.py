"""Predicted joints, in the pixels of their images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted people: `joints` float64 [N, J, 2] in 0-based image pixels, `scores` [N, J]."""

    joints: np.ndarray
    scores: np.ndarray


def concatenate(batches: Iterable[Predictions]) -> Predictions:
    """Concatenate batches, in order; batches, and the result, may be empty."""
    batches = [batch for batch in batches if len(batch.joints)]
    if not batches:
        return Predictions(np.zeros((0, 0, 2)), np.zeros((0, 0)))
    return Predictions(
        np.concatenate([batch.joints for batch in batches]),
        np.concatenate([batch.scores for batch in batches]),
    )
