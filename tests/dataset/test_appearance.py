"""Colour and holes: bounded, and the same for the same numbers."""

import numpy as np
import pytest

from lib.dataset.appearance import Appearance, vary_appearance


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 180, (40, 30, 3)).astype(np.uint8)


def varied(seed: int, **settings: float) -> np.ndarray:
    image = picture()
    result = vary_appearance(image, Appearance(**settings), np.random.default_rng(seed))
    assert np.array_equal(image, picture())  # the crop itself is left as it is
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    return result


def test_nothing_asked_nothing_changed() -> None:
    assert np.array_equal(varied(0), picture())


@pytest.mark.parametrize("settings", [{"color": 0.3}, {"cutout": 1.0}])
def test_the_same_numbers_give_the_same_crop(settings: dict[str, float]) -> None:
    assert np.array_equal(varied(1, **settings), varied(1, **settings))
    assert not np.array_equal(varied(1, **settings), varied(2, **settings))


def test_colour_changes_a_little_and_places_not_at_all() -> None:
    for seed in range(20):
        change = varied(seed, color=0.2).astype(float) - picture()
        assert 0 < np.abs(change).max() < 0.2 * 255 + 0.2 * 255
    # Where all channels agree they still do: grey stays grey.
    grey = np.repeat(picture()[..., :1], 3, axis=2)
    result = vary_appearance(grey, Appearance(color=0.5), np.random.default_rng(3)).astype(int)
    assert np.ptp(result, axis=2).max() <= 1
    # Brighter places stay brighter.
    order = np.argsort(grey[..., 0], axis=None)
    assert (np.diff(result[..., 0].ravel()[order]) >= 0).all()


def test_a_hole_is_a_square_of_one_colour_and_the_rest_stays() -> None:
    holes = 0
    for seed in range(40):
        changed = (varied(seed, cutout=0.5) != picture()).any(axis=2)
        if not changed.any():
            continue
        holes += 1
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        hole = varied(seed, cutout=0.5)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (hole == hole[0, 0]).all()
        assert max(np.ptp(rows), np.ptp(columns)) < 0.4 * 30 + 1
    assert 8 < holes < 32
