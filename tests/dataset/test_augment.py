"""Augmentation follows HRNet's rules and depends on its generator only."""

import numpy as np
import pytest

from lib.dataset.augment import Augmentation, View, augment, half_body
from lib.dataset.skeleton import MPII
from lib.dataset.transforms import crop_matrix, transform_points

EVERYTHING = Augmentation(0.25, 30.0, True, 0.5, 8)
ALL = np.ones(16, np.float32)
JOINTS = np.random.default_rng(5).uniform(100, 300, (16, 2)).astype(np.float32)
VIEW = View(np.array([200.0, 210.0]), np.array([1.5, 1.5]))


def views(settings: Augmentation, visible: np.ndarray = ALL, count: int = 2000) -> list[View]:
    return [
        augment(VIEW, JOINTS, visible, MPII, settings, 0.75, np.random.default_rng([3, 0, index]))
        for index in range(count)
    ]


def numbers(view: View) -> list[float]:
    return [*view.center, *view.scale, view.rotation, view.mirrored]


def test_a_view_depends_on_the_generator_only() -> None:
    def drawn(seed: int) -> list[float]:
        generator = np.random.default_rng(seed)
        return numbers(augment(VIEW, JOINTS, ALL, MPII, EVERYTHING, 1.0, generator))

    np.random.seed(1)  # noqa: NPY002 -- the global state must not matter
    first = drawn(1)
    np.random.seed(2)  # noqa: NPY002
    assert drawn(1) == first
    assert drawn(2) != first


def test_default_settings_change_nothing() -> None:
    still = augment(VIEW, JOINTS, ALL, MPII, Augmentation(), 1.0, np.random.default_rng([0, 0, 0]))
    assert numbers(still) == numbers(VIEW)


def test_scale_rotation_and_mirroring_have_hrnets_distribution() -> None:
    drawn = views(Augmentation(0.25, 30.0, True))
    change = np.array([view.scale / VIEW.scale for view in drawn])
    np.testing.assert_array_equal(change[:, 0], change[:, 1])
    assert change.min() == 0.75
    assert change.max() == 1.25
    assert np.mean(change == 1.25) == pytest.approx(0.159, abs=0.03)  # beyond one deviation
    angles = np.array([view.rotation for view in drawn])
    rotated = angles[angles != 0]
    assert len(rotated) / len(angles) == pytest.approx(0.6, abs=0.04)
    assert np.abs(rotated).max() == 60
    assert rotated.mean() == pytest.approx(0, abs=3)
    assert rotated.std() == pytest.approx(29, abs=2)  # 30, reduced by clipping
    assert np.mean([view.mirrored for view in drawn]) == pytest.approx(0.5, abs=0.04)
    assert all((view.center == VIEW.center).all() for view in drawn)
    assert not any(view.mirrored for view in views(Augmentation(flip=False), count=20))


def test_half_bodies_have_their_probability_and_need_visible_joints() -> None:
    settings = Augmentation(half_body_probability=0.3, half_body_joints=8)
    moved = [not np.array_equal(view.center, VIEW.center) for view in views(settings)]
    assert np.mean(moved) == pytest.approx(0.3, abs=0.04)
    eight = np.repeat([1.0, 0.0], 8)
    assert not any(view.center is not VIEW.center for view in views(settings, eight, 50))


def test_half_body_is_the_box_around_one_half() -> None:
    upper = list(MPII.upper_body)
    lower = [joint for joint in range(16) if joint not in upper]
    uppers = 0
    for index in range(1000):
        view = half_body(VIEW, JOINTS, ALL, MPII, 0.75, np.random.default_rng([0, 0, index]))
        is_upper = np.allclose(view.center, JOINTS[upper].mean(0))
        chosen = JOINTS[upper if is_upper else lower]
        np.testing.assert_allclose(view.center, chosen.mean(0), rtol=1e-6)
        extent = np.ptp(chosen, axis=0) * 1.5 / 200
        assert view.scale[0] / view.scale[1] == pytest.approx(0.75)
        assert (view.scale >= extent - 1e-6).all()
        assert np.isclose(view.scale, extent).any()
        uppers += is_upper
    assert uppers / 1000 == pytest.approx(0.691, abs=0.05)  # a normal number below 0.5


def test_half_body_uses_the_half_that_has_joints() -> None:
    visible = np.zeros(16, np.float32)
    visible[[7, 8, 9, 0, 1]] = 1  # two below are too few
    for index in range(20):
        view = half_body(VIEW, JOINTS, visible, MPII, 1.0, np.random.default_rng([0, 0, index]))
        np.testing.assert_allclose(view.center, JOINTS[7:10].mean(0), rtol=1e-6)
    visible[:] = 0
    visible[[0, 9]] = 1
    assert half_body(VIEW, JOINTS, visible, MPII, 1.0, np.random.default_rng([0, 0, 0])) is VIEW


def test_joints_at_one_point_still_have_a_crop() -> None:
    spot = np.full((16, 2), 50, np.float32)
    settings = Augmentation(0.9, half_body_probability=1.0)
    for index in range(20):
        view = augment(VIEW, spot, ALL, MPII, settings, 1.0, np.random.default_rng([0, 0, index]))
        assert np.isfinite(view.matrix((64, 64))).all()


def test_a_mirrored_view_equals_hrnets() -> None:
    """Mirror image and center, then rotate by the opposite angle."""
    view = View(VIEW.center, VIEW.scale, rotation=20.0, mirrored=True)
    mirrored_center = (399 - VIEW.center[0], VIEW.center[1])  # in an image 400 wide
    hrnet = crop_matrix(mirrored_center, VIEW.scale, -20.0, (64, 48))
    expected = transform_points(np.array([399, 0]) + JOINTS * (-1, 1), hrnet)
    np.testing.assert_allclose(transform_points(JOINTS, view.matrix((64, 48))), expected, atol=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
def test_a_mirrored_crop_keeps_its_center(unbiased: bool) -> None:
    view = View(np.array([200.0, 150.0]), np.array([1.0, 1.0]), 0.0, True, unbiased)
    middle = transform_points(view.center, view.matrix((64, 48)))
    np.testing.assert_allclose(middle, [31.5, 23.5] if unbiased else [32, 24])
    assert view.matrix((64, 48))[0, 0] < 0
