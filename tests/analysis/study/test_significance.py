"""Intervals of differences: paired, by people and seeds."""

import numpy as np
import pytest

from lib.analysis.study.report import difference


def sample(rng: np.random.Generator, probability: np.ndarray, seeds: int) -> np.ndarray:
    """Percent points of 14 joints for each seed and person; [seeds, N, 2]."""
    correct = rng.binomial(14, probability, (seeds, len(probability)))
    return np.stack([100.0 * correct, np.full(correct.shape, 14.0)], axis=2)


def test_a_network_does_not_differ_from_itself() -> None:
    a = sample(np.random.default_rng(0), np.full(50, 0.5), 3)
    result = difference(a, a, rounds=100)
    assert result == (0, 0, 0)


def test_a_clear_gain_is_significant_and_antisymmetric() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.2, 0.8, 300)
    a, b = sample(rng, probability, 3), sample(rng, probability + 0.1, 3)
    gain, loss = difference(a, b, rounds=500), difference(b, a, rounds=500)
    assert 0 < gain.low < gain.mean < gain.high
    assert gain.mean == pytest.approx(10, abs=2)
    assert (loss.low, loss.mean, loss.high) == pytest.approx((-gain.high, -gain.mean, -gain.low))


def test_the_difference_is_that_of_the_scores_if_weights_differ() -> None:
    """Two networks may be scored over different numbers of joints."""
    rng = np.random.default_rng(0)
    a, b = sample(rng, np.full(40, 0.4), 2), sample(rng, np.full(40, 0.6), 2)
    b[:, ::2, 1] = 7
    scores = [np.mean([seed[:, 0].sum() / seed[:, 1].sum() for seed in x]) for x in (a, b)]
    result = difference(a, b, rounds=200)
    assert result.mean == pytest.approx(scores[1] - scores[0])
    assert result.low < result.mean < result.high


def test_pairing_makes_the_interval_narrow() -> None:
    rng = np.random.default_rng(0)
    a = sample(rng, rng.uniform(0, 1, 200), 2)
    b = a.copy()
    b[:, ::7, 0] = np.minimum(1400, b[:, ::7, 0] + 100)
    paired = difference(a, b, rounds=500)
    shuffled = difference(a, b[:, rng.permutation(200)], rounds=500)
    assert paired.high - paired.low < 0.2 * (shuffled.high - shuffled.low)


def test_about_95_percent_of_intervals_contain_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        probability = rng.uniform(0.2, 0.8, 80)
        result = difference(
            sample(rng, probability, 5), sample(rng, probability, 5), rounds=200, seed=trial
        )
        covered += result.low <= 0 <= result.high
    assert covered >= 52  # 57 of 60 are expected
