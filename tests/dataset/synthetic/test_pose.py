"""Bodies are anatomical: symmetric bones, angles within limits, joints that bend correctly."""

import numpy as np
import pytest

from lib.dataset.skeleton import MPII
from lib.dataset.synthetic import pose as synthetic_pose
from lib.dataset.synthetic.pose import (
    BONES,
    JOINT_LIMITS,
    Pose,
    build_pose,
    rotation,
    sample_pose,
)


def posed(angles: dict[str, float], yaw: float = 0) -> Pose:
    """Return a body at rest except for some angles."""
    rest = dict.fromkeys(JOINT_LIMITS, 0.0) | angles
    turn = rotation(0, yaw, 0)
    return build_pose(BONES, rest, [rest, rest], [rest, rest], turn)


def test_bones_are_symmetric() -> None:
    rng = np.random.default_rng(0)
    mirror = np.array(MPII.flip_order)
    for _ in range(50):
        joints = sample_pose(rng).joints
        for a, b in ((2, 6), (1, 2), (0, 1), (7, 12), (12, 11), (11, 10)):
            length = np.linalg.norm(joints[a] - joints[b])
            other = np.linalg.norm(joints[mirror[a]] - joints[mirror[b]])
            assert length == pytest.approx(other)
            assert length > 0.25


def test_sampled_angles_are_within_limits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        wild = dict.fromkeys(JOINT_LIMITS, (0, 200))
        for name, angle in synthetic_pose._sample_angles(rng, wild).items():
            low, high = JOINT_LIMITS[name]
            assert low <= angle <= high


def test_joints_bend_in_the_right_direction() -> None:
    joint = {name: index for index, name in enumerate(MPII.names)}
    facing = posed({})
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        right, left = (facing.joints[joint[f"{side}_{name}"]] for side in ("right", "left"))
        assert right[0] < 0 < left[0]  # a body that faces the camera has its right on the left
    assert (facing.toes[:, 2] < -0.5).all()
    assert (posed({}, yaw=180).toes[:, 2] > 0.5).all()
    assert posed({}, yaw=180).joints[joint["left_hip"], 0] < 0

    for side in ("right", "left"):
        wrist, ankle = joint[f"{side}_wrist"], joint[f"{side}_ankle"]
        elbow, knee = joint[f"{side}_elbow"], joint[f"{side}_knee"]
        bent = posed({"elbow": 90, "knee": 90}).joints
        assert bent[wrist, 2] < bent[elbow, 2] - 0.9  # forearms bend forward
        assert bent[ankle, 2] > bent[knee, 2] + 1.4  # shanks bend backward
        raised = posed({"shoulder_abduction": 90, "hip_abduction": 45}).joints
        assert abs(raised[wrist, 0]) > 2.5
        assert abs(raised[ankle, 0]) > 2
    assert posed({"spine_bend": 60}).joints[joint["thorax"], 2] < -1
    assert posed({"hip_flexion": 90}).joints[joint["left_knee"], 2] < -1.5
