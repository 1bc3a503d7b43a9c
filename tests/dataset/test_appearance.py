"""Colour jitter and cutout: bounded, and repeatable."""

import numpy as np
import pytest

from lib.dataset.augment import Augmentation, vary_appearance


def random_image() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 180, (40, 30, 3)).astype(np.uint8)


def varied(seed: int, **settings: float) -> np.ndarray:
    image = random_image()
    result = vary_appearance(image, Augmentation(**settings), np.random.default_rng(seed))
    assert np.array_equal(image, random_image())  # the crop itself is unchanged
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    return result


def test_default_settings_change_nothing() -> None:
    assert np.array_equal(varied(0), random_image())


@pytest.mark.parametrize("settings", [{"color": 0.3}, {"cutout": 1.0}])
def test_the_same_seed_gives_the_same_crop(settings: dict[str, float]) -> None:
    assert np.array_equal(varied(1, **settings), varied(1, **settings))
    assert not np.array_equal(varied(1, **settings), varied(2, **settings))


def test_color_changes_a_little_and_keeps_its_order() -> None:
    for seed in range(20):
        change = varied(seed, color=0.2).astype(float) - random_image()
        assert 0 < np.abs(change).max() < 0.2 * 255 + 0.2 * 255
    # Grey stays grey.
    grey = np.repeat(random_image()[..., :1], 3, axis=2)
    result = vary_appearance(grey, Augmentation(color=0.5), np.random.default_rng(3)).astype(int)
    assert np.ptp(result, axis=2).max() <= 1
    # Brighter pixels stay brighter.
    order = np.argsort(grey[..., 0], axis=None)
    assert (np.diff(result[..., 0].ravel()[order]) >= 0).all()


def test_cutout_is_a_square_of_one_color() -> None:
    holes = 0
    for seed in range(40):
        changed = (varied(seed, cutout=0.5) != random_image()).any(axis=2)
        if not changed.any():
            continue
        holes += 1
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        hole = varied(seed, cutout=0.5)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (hole == hole[0, 0]).all()
        assert max(np.ptp(rows), np.ptp(columns)) < 0.4 * 30 + 1
    assert 8 < holes < 32
