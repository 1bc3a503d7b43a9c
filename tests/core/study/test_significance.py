"""Intervals hold what they say: paired, by people and seeds."""

import numpy as np
import pytest

from lib.core.evaluate import pckh
from lib.core.study.significance import difference, hits


def draw(rng: np.random.Generator, chance: np.ndarray, seeds: int) -> np.ndarray:
    """Found of 14 joints, for each seed and person; [seeds, N, 2]."""
    found = rng.binomial(14, chance, (seeds, len(chance)))
    return np.stack([found, np.full_like(found, 14)], axis=2)


def test_hits_add_up_to_pckh() -> None:
    rng = np.random.default_rng(0)
    gt = {
        "pos_gt_src": rng.uniform(0, 100, (16, 2, 30)),
        "jnt_missing": (rng.random((16, 30)) < 0.2).astype(float),
        "headboxes_src": np.stack([np.zeros((2, 30)), np.full((2, 30), 20.0)]),
    }
    pred = np.transpose(gt["pos_gt_src"], (2, 0, 1)) + rng.normal(0, 6, (30, 16, 2))
    for threshold, name in ((0.5, "Mean"), (0.1, "Mean@0.1")):
        found = hits(pred, gt, threshold).sum(axis=0)
        assert 100 * found[0] / found[1] == pytest.approx(pckh(pred, gt)[name])


def test_a_network_is_no_better_than_itself() -> None:
    a = draw(np.random.default_rng(0), np.full(50, 0.5), 3)
    found = difference(a, a, rounds=100)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert not found.is_sure


def test_a_clear_gain_is_sure_and_its_sign_turns() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.2, 0.8, 300)
    a, b = draw(rng, chance, 3), draw(rng, chance + 0.1, 3)
    gain, loss = difference(a, b, rounds=500), difference(b, a, rounds=500)
    assert gain.is_sure
    assert gain.low < gain.mean < gain.high
    assert gain.mean == pytest.approx(10, abs=2)
    assert (loss.low, loss.mean, loss.high) == pytest.approx((-gain.high, -gain.mean, -gain.low))


def test_pairing_makes_the_interval_narrow() -> None:
    rng = np.random.default_rng(0)
    a = draw(rng, rng.uniform(0, 1, 200), 2)
    b = a.copy()
    b[:, ::7, 0] = np.minimum(14, b[:, ::7, 0] + 1)
    paired = difference(a, b, rounds=500)
    shuffled = difference(a, b[:, rng.permutation(200)], rounds=500)
    assert paired.high - paired.low < 0.2 * (shuffled.high - shuffled.low)


def test_intervals_cover_no_difference_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        chance = rng.uniform(0.2, 0.8, 80)
        found = difference(draw(rng, chance, 5), draw(rng, chance, 5), rounds=200, seed=trial)
        covered += found.low <= 0 <= found.high
    assert covered >= 52  # 57 of 60 are expected
