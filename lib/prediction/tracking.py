"""People followed through the frames of a video: track ids, and joints smoothed over time."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_convert, box_iou

from lib.predictor import Person

MIN_IOU = 0.3  # of a person's boxes in two frames
MAX_GAP = 1.0  # seconds without a box after which a person gets a new id
# Of the One-Euro filter: cutoff frequency in Hz at rest, and its growth with speed, in sides of
# the box per second; cutoff frequency of the speed.
MIN_CUTOFF, BETA, SPEED_CUTOFF = 0.5, 10.0, 2.0


class _Track(NamedTuple):
    person: Person  # as last seen, with smoothed joints
    time: float  # in seconds
    speeds: np.ndarray  # of the joints [J, 2], pixels per second


class Tracker:
    """Gives the people of one video track ids from 1, by the overlap of their boxes.

    With `smooth` their joints are smoothed by the One-Euro filter of Casiez, Roussel and Vogel,
    CHI 2012: strongly at rest, little in motion, where lag would show.
    """

    def __init__(self, smooth: bool = False) -> None:
        self._smooth = smooth
        self._tracks: list[_Track] = []
        self._time = 0.0  # of the last frame
        self._count = 0

    def __call__(self, people: Sequence[Person], time: float) -> list[Person]:
        """Return the people of the next frame, at a later time in seconds, with track ids."""
        oldest = min(time - MAX_GAP, self._time)
        old = [track for track in self._tracks if track.time >= oldest]
        overlaps = _overlaps([track.person for track in old], people)
        pairs = zip(*linear_sum_assignment(overlaps, maximize=True), strict=True)
        before = {new: old[index] for index, new in pairs if overlaps[index, new] > 0}
        new = [self._follow(person, time, before.get(i)) for i, person in enumerate(people)]
        seen = {track.person.track_id for track in new}
        self._tracks = new + [track for track in old if track.person.track_id not in seen]
        self._time = time
        return [track.person for track in new]

    def _follow(self, person: Person, time: float, before: _Track | None) -> _Track:
        if before is None:
            self._count += 1
            still = np.zeros_like(person.joints)
            return _Track(replace(person, track_id=self._count), time, still)
        person, step = replace(person, track_id=before.person.track_id), time - before.time
        if not self._smooth:
            return _Track(person, time, before.speeds)
        # A joint without a position keeps its last one, and starts at its first one.
        last = before.person.joints
        last = np.where(np.isfinite(last), last, person.joints)
        moved, gain = np.nan_to_num(person.joints - last), _gain(SPEED_CUTOFF, step)
        speeds = gain * moved / step + (1 - gain) * before.speeds
        speed = np.linalg.norm(speeds, axis=-1, keepdims=True) / person.box[2:].max()
        joints = last + _gain(MIN_CUTOFF + BETA * speed, step) * moved
        return _Track(replace(person, joints=joints), time, speeds)


def _gain(cutoff: float | np.ndarray, step: float) -> float | np.ndarray:
    """Return the weight of the newest value in a low-pass filter, from 0 to 1."""
    return 1 / (1 + 1 / (2 * math.pi * step * cutoff))


def _overlaps(old: Sequence[Person], new: Sequence[Person]) -> np.ndarray:
    """Return the IoU of people's boxes, [len(old), len(new)], 0 below MIN_IOU."""
    boxes = [np.reshape([person.box for person in people], (-1, 4)) for people in (old, new)]
    corners = [box_convert(torch.from_numpy(side), "xywh", "xyxy") for side in boxes]
    iou = box_iou(*corners).numpy()
    return np.where(iou < MIN_IOU, 0, iou)
