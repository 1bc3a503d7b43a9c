"""Bodies in 3D: bones, joint angles within their limits, and typical poses.

Coordinates are in head lengths (upper neck to head top), x to the right of the image, y down, z
away from the viewer. At rest a body faces the viewer (-z) with hanging arms; its left is at +x.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from lib.dataset.skeleton import MPII

# Limits of each joint's angles from rest, in degrees, sampled in this order.
JOINT_LIMITS = {
    "spine_bend": (-20, 80), "spine_side": (-30, 30), "spine_twist": (-35, 35),
    "neck_bend": (-30, 30), "neck_side": (-25, 25), "neck_turn": (-60, 60),
    "shoulder_flexion": (-45, 170), "shoulder_abduction": (-5, 170), "shoulder_twist": (-80, 80),
    "elbow": (0, 145),
    "hip_flexion": (-25, 120), "hip_abduction": (-10, 50), "hip_twist": (-30, 30),
    "knee": (0, 140),
    "ankle": (-25, 35),
}  # fmt: skip

Named = Mapping[str, float]  # angles in degrees as in JOINT_LIMITS, or lengths as in BONES
Spread = Mapping[str, tuple[float, float]]  # mean and standard deviation of angles

# Typical poses of trunk, arm and legs: how often, and the angles that differ from RESTING.
RESTING: Spread = dict.fromkeys(JOINT_LIMITS, (0, 5)) | {
    "neck_turn": (0, 18),
    "shoulder_twist": (0, 25),
    "hip_abduction": (7, 6),
    "elbow": (15, 15),
    "knee": (5, 5),
}
TRUNKS: Sequence[tuple[float, Spread]] = (
    (0.88, {"spine_bend": (4, 8), "spine_side": (0, 6), "spine_twist": (0, 10)}),
    (0.12, {"spine_bend": (45, 18), "spine_side": (0, 10), "neck_bend": (-15, 10)}),
)
HAND_ON_HIP: Spread = {
    "shoulder_flexion": (-15, 8), "shoulder_abduction": (45, 8), "shoulder_twist": (65, 10),
    "elbow": (95, 12),
}  # fmt: skip
ARMS: Sequence[tuple[float, Spread]] = (
    (0.50, {"shoulder_flexion": (5, 15), "shoulder_abduction": (14, 9)}),  # hanging
    (0.08, {"shoulder_abduction": (140, 22), "elbow": (35, 30)}),  # raised
    (0.08, {"shoulder_abduction": (80, 20), "elbow": (40, 35), "shoulder_twist": (0, 50)}),
    (0.12, {"shoulder_flexion": (75, 25), "shoulder_abduction": (15, 15), "elbow": (40, 30)}),
    (0.14, {"shoulder_flexion": (15, 15), "shoulder_abduction": (12, 8), "elbow": (90, 20)}),
    (0.08, HAND_ON_HIP),
)
CROUCHING: tuple[Spread, Spread] = (
    {"hip_flexion": (95, 14), "knee": (115, 15), "hip_abduction": (20, 10)},
    {"hip_flexion": (75, 20), "knee": (110, 15), "hip_abduction": (15, 10)},
)
SITTING: Spread = {"hip_flexion": (82, 10), "knee": (80, 15), "hip_abduction": (12, 8)}
LEGS: Sequence[tuple[float, Spread, Spread]] = (  # one leg and the other, in random order
    (0.42, {}, {}),  # standing
    (0.12, {"hip_abduction": (22, 8)}, {"hip_abduction": (22, 8)}),
    (0.20, {"hip_flexion": (25, 10)}, {"hip_flexion": (-15, 7), "knee": (20, 14)}),  # walking
    (0.08, {"hip_flexion": (70, 18), "knee": (75, 25)}, {"hip_flexion": (-8, 8)}),  # a knee up
    (0.10, SITTING, SITTING),
    (0.08, *CROUCHING),
)

# In head lengths, as in MPII's annotation of people seen from the front.
BONES = {
    "hip": 0.36,  # pelvis to either hip
    "trunk": 1.85,  # pelvis to thorax
    "neck": 0.28,  # thorax to upper neck
    "shoulder": 0.64,  # thorax to either shoulder
    "upper_arm": 1.15,
    "forearm": 1.0,
    "thigh": 1.6,
    "shank": 1.55,
}

# MPII's joints of the right and the left, from the trunk outwards.
ARM_JOINTS = [[12, 11, 10], [13, 14, 15]]
LEG_JOINTS = [[2, 1, 0], [3, 4, 5]]
SIDES = (-1, 1)  # the sign of x of a body's right and left


@dataclass(frozen=True)
class Pose:
    """A body in 3D, in head lengths, pelvis at 0; axes as above."""

    joints: np.ndarray  # [16, 3] in MPII's order
    toes: np.ndarray  # [2, 3], right then left
    fingers: np.ndarray  # likewise
    chest: np.ndarray  # [3, 3], rotates directions of the resting body to those of this pose
    head: np.ndarray  # likewise


def sample_pose(rng: Generator) -> Pose:
    """Sample a body: bones, angles of trunk, arms and legs within JOINT_LIMITS, orientation."""
    bones = {name: length * rng.normal(1, 0.05) for name, length in BONES.items()}
    trunk = _sample_angles(rng, _choose(rng, TRUNKS)[0])
    arms = [_sample_angles(rng, _choose(rng, ARMS)[0]) for _ in range(2)]
    if rng.random() < 0.4:  # both arms in the same pose
        arms[1] = _limit({name: angle + rng.normal(0, 5) for name, angle in arms[0].items()})
    legs = [_sample_angles(rng, leg) for leg in _choose(rng, LEGS)]
    if rng.random() < 0.5:
        legs.reverse()
    return build_pose(bones, trunk, arms, legs, _sample_turn(rng))


def build_pose(
    bones: Named, trunk: Named, arms: Sequence[Named], legs: Sequence[Named], turn: np.ndarray
) -> Pose:
    """Compute the joints from the pelvis outwards (forward kinematics).

    `bones` as BONES; arms and legs right then left; `turn` [3, 3] rotates the whole body.
    """
    chest = turn @ rotation(trunk["spine_bend"], trunk["spine_twist"], trunk["spine_side"])
    neck = chest @ rotation(0.5 * trunk["neck_bend"], 0, 0.5 * trunk["neck_side"])
    head = chest @ rotation(trunk["neck_bend"], trunk["neck_turn"], trunk["neck_side"])
    thorax = -bones["trunk"] * chest[:, 1]
    upper_neck = thorax - bones["neck"] * neck[:, 1]
    # Each [2, 4, 3]: right and left, three joints and their end.
    reach = np.stack([_arm(bones, *arm, chest, thorax) for arm in zip(arms, SIDES, strict=True)])
    stand = np.stack([_leg(bones, *leg, turn) for leg in zip(legs, SIDES, strict=True)])
    joints = np.zeros((MPII.num_joints, 3))
    joints[7:10] = thorax, upper_neck, upper_neck - head[:, 1]
    joints[ARM_JOINTS], joints[LEG_JOINTS] = reach[:, :3], stand[:, :3]
    return Pose(joints, stand[:, 3], reach[:, 3], chest, head)


def _arm(
    bones: Named, angles: Named, side: int, chest: np.ndarray, thorax: np.ndarray
) -> np.ndarray:
    """Return shoulder, elbow, wrist and fingertips, [4, 3]."""
    abduction, twist = angles["shoulder_abduction"], angles["shoulder_twist"]
    # The shoulder is low if the arm hangs and high if it is raised.
    lift = np.array([side, 0.08 - 0.002 * max(abduction, 0), 0])
    upper_arm = chest @ rotation(-angles["shoulder_flexion"], side * twist, -side * abduction)
    forearm = upper_arm @ rotation(-angles["elbow"], 0, 0)
    shoulder = thorax + bones["shoulder"] * chest @ lift / np.linalg.norm(lift)
    elbow = shoulder + bones["upper_arm"] * upper_arm[:, 1]
    wrist = elbow + bones["forearm"] * forearm[:, 1]
    return np.stack([shoulder, elbow, wrist, wrist + 0.32 * forearm[:, 1]])


def _leg(bones: Named, angles: Named, side: int, turn: np.ndarray) -> np.ndarray:
    """Return hip, knee, ankle and toes, [4, 3]."""
    thigh = turn @ rotation(
        -angles["hip_flexion"], -side * angles["hip_twist"], -side * angles["hip_abduction"]
    )
    shank = thigh @ rotation(angles["knee"], 0, 0)
    foot = shank @ rotation(angles["ankle"], 0, 0)
    hip = bones["hip"] * side * turn[:, 0]
    knee = hip + bones["thigh"] * thigh[:, 1]
    ankle = knee + bones["shank"] * shank[:, 1]
    return np.stack([hip, knee, ankle, ankle + foot @ np.array([0.08 * side, 0.2, -0.62])])


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Rotate about y by yaw, then about x by pitch, then about z by roll (degrees), [3, 3]."""
    return Rotation.from_euler("yxz", [yaw, pitch, roll], degrees=True).as_matrix()


def _choose(rng: Generator, table: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Sample a row of a table by its first column, the probability; return the other columns."""
    return table[rng.choice(len(table), p=[row[0] for row in table])][1:]


def _sample_angles(rng: Generator, angles: Spread) -> dict[str, float]:
    return _limit({name: rng.normal(*angles.get(name, RESTING[name])) for name in JOINT_LIMITS})


def _limit(angles: Named) -> dict[str, float]:
    """Clip angles to JOINT_LIMITS; an arm raised sideways cannot also be raised forward."""
    limited = {name: float(np.clip(angles[name], *JOINT_LIMITS[name])) for name in JOINT_LIMITS}
    reach = JOINT_LIMITS["shoulder_flexion"][1] - max(limited["shoulder_abduction"], 0)
    limited["shoulder_flexion"] = min(limited["shoulder_flexion"], reach)
    return limited


def _sample_turn(rng: Generator) -> np.ndarray:
    """Sample the orientation of the body: mostly upright, seven of ten facing the camera."""
    facing = rng.choice([0, 180, 90, -90], p=[0.68, 0.26, 0.03, 0.03])
    yaw = facing + rng.normal(0, 17)
    roll = rng.normal(0, 50 if rng.random() < 0.05 else 7)
    return rotation(rng.normal(0, 7), 0, roll) @ rotation(0, yaw, 0)
