"""How sure a difference of two networks is: intervals over people and seeds, paired."""

from dataclasses import dataclass

import numpy as np

from lib.core.evaluate import JOINTS, NOT_IN_MEAN, normalised_errors

_IN_MEAN = [index for index in range(len(JOINTS)) if index not in NOT_IN_MEAN]


@dataclass(frozen=True)
class Difference:
    """How much higher PCKh is, and the interval that holds 95 % of the resampled differences."""

    mean: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def hits(pred: np.ndarray, gt: dict[str, np.ndarray], threshold: float = 0.5) -> np.ndarray:
    """Joints found and joints annotated of each person, among those of PCKh's mean; [N, 2]."""
    errors = normalised_errors(pred, gt)[:, _IN_MEAN]
    return np.stack([(errors <= threshold).sum(axis=1), (~np.isnan(errors)).sum(axis=1)], axis=1)


def difference(a: np.ndarray, b: np.ndarray, rounds: int = 10_000, seed: int = 0) -> Difference:
    """PCKh's mean of `b` less that of `a`, both [seeds, N, 2] as of `hits` on the same people.

    Seeds are paired in their order, people with themselves. Each round draws seeds and people with
    replacement (Efron's bootstrap in two levels); the interval is of the percentiles.
    """
    assert a.shape == b.shape, (a.shape, b.shape)
    seeds, people, _ = a.shape
    gained = (b[..., 0] - a[..., 0]).astype(np.float64)  # [seeds, N]
    annotated = a[0, :, 1].astype(np.float64)
    generator = np.random.default_rng(seed)
    drawn = np.empty(rounds)
    for number in range(rounds):
        chosen = np.bincount(generator.integers(people, size=people), minlength=people)
        by_seed = gained @ chosen / (annotated @ chosen)
        drawn[number] = by_seed[generator.integers(seeds, size=seeds)].mean()
    low, high = np.percentile(drawn, (2.5, 97.5))
    mean = gained.sum() / (seeds * annotated.sum())
    return Difference(100 * mean, 100 * low, 100 * high)
