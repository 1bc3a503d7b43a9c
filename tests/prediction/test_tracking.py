"""Track ids and smoothed joints of people in a video."""

from collections.abc import Sequence

import numpy as np
import pytest

from lib.prediction.tracking import MAX_GAP, Tracker
from lib.predictor import Person

RATE = 30.0


def person(x: float, joints: np.ndarray | None = None, width: float = 50.0) -> Person:
    joints = np.full((3, 2), x) if joints is None else joints
    return Person(joints, np.ones(3, np.float32), np.array([x, 10.0, width, 100.0]))


def ids(people: Sequence[Person]) -> list[int | None]:
    return [person.track_id for person in people]


def test_people_keep_their_ids_in_any_order() -> None:
    tracker = Tracker()
    assert ids(tracker([person(0), person(200)], 0.0)) == [1, 2]
    assert ids(tracker([person(205), person(400), person(5)], 0.1)) == [2, 3, 1]
    assert ids(tracker([], 0.2)) == []
    assert ids(tracker([person(10), person(11), person(210)], 0.3)) == [1, 4, 2]
    assert ids(tracker([person(60)], 0.4)) == [5]  # too far from the last box of 1


def test_a_person_who_leaves_gets_a_new_id() -> None:
    tracker = Tracker()
    tracker([person(0)], 0.0)
    tracker([], 0.1)
    assert ids(tracker([person(0)], MAX_GAP - 0.01)) == [1]
    tracker([], MAX_GAP)
    assert ids(tracker([person(0)], 2 * MAX_GAP + 0.1)) == [2]


def test_slow_videos_have_tracks_too() -> None:
    tracker = Tracker()
    assert [ids(tracker([person(0)], 5 * MAX_GAP * n)) for n in range(3)] == [[1]] * 3


def smoothed(positions: np.ndarray, zoom: float = 1.0, rate: float = RATE) -> np.ndarray:
    """The x of a joint over time, of a person whose box has a longer side of 100."""
    tracker = Tracker(smooth=True)
    people = [
        Person(np.array([[x * zoom, 0.0]]), np.ones(1), np.array([0, 0, 50.0, 100.0]) * zoom)
        for x in positions
    ]
    return np.array([tracker([p], i / rate)[0].joints[0, 0] for i, p in enumerate(people)]) / zoom


def test_trembling_at_rest_is_smoothed() -> None:
    noise = np.random.default_rng(0).normal(50, 1, 300)
    assert smoothed(noise)[30:].std() < 0.55 * noise.std()
    np.testing.assert_allclose(smoothed(noise, zoom=8), smoothed(noise))  # of any size


def test_motion_lags_little() -> None:
    time = np.arange(120) / RATE
    swing = 50 * np.sin(2 * np.pi * time)  # the arm of a quick walker: a side of the box a second
    assert np.abs(smoothed(swing) - swing)[30:].max() < 5
    jump = np.where(time < 2, 0.0, 100.0)
    assert smoothed(jump)[60 + 5] > 95


def test_a_steady_joint_is_not_moved_and_times_may_vary() -> None:
    np.testing.assert_allclose(smoothed(np.full(9, 7.0), rate=0.5), 7)


def test_a_joint_without_position_keeps_its_last_one() -> None:
    nan = np.nan
    out = smoothed(np.array([nan, nan, 5, 5, nan, 5]))
    assert np.isnan(out[:2]).all()
    np.testing.assert_allclose(out[2:], 5)


def test_without_smoothing_joints_are_as_predicted() -> None:
    tracker, joints = Tracker(), np.random.default_rng(0).normal(0, 9, (5, 3, 2))
    for index, points in enumerate(joints):
        (out,) = tracker([person(3, points)], index / RATE)
        np.testing.assert_array_equal(out.joints, points)
        assert out.score == pytest.approx(1)
