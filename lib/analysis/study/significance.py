"""Confidence intervals of the difference between two networks, paired by people and seeds."""

from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """Difference of two mean scores, and its 95 % interval."""

    mean: float
    low: float
    high: float


def difference(a: np.ndarray, b: np.ndarray, rounds: int = 10_000, seed: int = 0) -> Difference:
    """Score of `b` minus that of `a`, both [seeds, N, 2], as of `Metric.contributions`.

    Both are of the same people and seeds, in the same order. A two-level bootstrap (Efron 1979):
    each round draws seeds and people with replacement; the interval is from the percentiles.
    """
    assert a.shape == b.shape, (a.shape, b.shape)
    seeds, people, _ = a.shape
    generator = np.random.default_rng(seed)
    samples = np.empty(rounds)
    for number in range(rounds):
        counts = np.bincount(generator.integers(people, size=people), minlength=people)
        by_seed = _scores(b, counts) - _scores(a, counts)
        samples[number] = by_seed[generator.integers(seeds, size=seeds)].mean()
    low, high = np.percentile(samples, (2.5, 97.5))
    everyone = np.ones(people)
    mean = (_scores(b, everyone) - _scores(a, everyone)).mean()
    return Difference(float(mean), float(low), float(high))


def _scores(contributions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Score of each seed, [seeds], if each person occurs `counts` [N] times."""
    total, weight = (counts.astype(np.float64) @ contributions).T
    return total / weight
