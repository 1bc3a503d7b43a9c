"""Skeletons: which joints there are, which limbs join them, which joint mirrors which."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.utils.errors import UserError


@dataclass(frozen=True)
class Skeleton:
    """The joints of a person as a graph; joints are named by their index.

    `limbs` are the edges, `mirrors` the left-right pairs, `upper_body` the joints that a half-body
    crop of the upper half keeps (the others make the lower half).
    """

    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    mirrors: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...]

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return len(self.names)

    @property
    def flip_order(self) -> list[int]:
        """The joint that stands at each place after the picture was mirrored, [J]."""
        order = list(range(self.num_joints))
        for left, right in self.mirrors:
            order[left], order[right] = right, left
        return order

    @property
    def joint_weights(self) -> list[float]:
        """How much each joint counts where the loss weighs joints: the farther out, the more.

        The HRNet family has these values for COCO, and 1 for every joint of other skeletons.
        """
        weights = {"elbow": 1.2, "knee": 1.2, "wrist": 1.5, "ankle": 1.5}
        return [weights.get(name.rpartition("_")[2], 1.0) for name in self.names]

    def distances(self) -> np.ndarray:
        """Length of the shortest way along limbs between each two joints, int [J, J].

        Joints that no way joins are J apart, which is farther than any way can be long.
        """
        joints = self.num_joints
        distance = np.full((joints, joints), joints)
        np.fill_diagonal(distance, 0)
        for a, b in self.limbs:
            distance[a, b] = distance[b, a] = 1
        for via in range(joints):  # Floyd and Warshall's shortest ways
            distance = np.minimum(distance, distance[:, via : via + 1] + distance[via : via + 1])
        return distance

    def joint_mask(self, hops: int) -> np.ndarray:
        """Which joint may attend to which: itself, its mirror, joints at most `hops` limbs away.

        bool [J, J], symmetric, true on the diagonal. `hops` 0 leaves self and mirror only, -1 lets
        every joint attend to every other.
        """
        if hops < 0:
            return np.ones((self.num_joints, self.num_joints), dtype=bool)
        mask = self.distances() <= hops
        for left, right in self.mirrors:
            mask[left, right] = mask[right, left] = True
        return mask


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    """Read `0-1 1-2` as ((0, 1), (1, 2))."""
    return tuple(tuple(map(int, pair.split("-"))) for pair in text.split())


MPII = Skeleton(
    names=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
        "pelvis", "thorax", "upper_neck", "head_top",
        "right_wrist", "right_elbow", "right_shoulder",
        "left_shoulder", "left_elbow", "left_wrist",
    ),
    limbs=_pairs("0-1 1-2 2-6 3-6 3-4 4-5 6-7 7-8 8-9 8-12 12-11 11-10 8-13 13-14 14-15"),
    mirrors=_pairs("0-5 1-4 2-3 10-15 11-14 12-13"),
    upper_body=tuple(range(7, 16)),
)  # fmt: skip

COCO = Skeleton(
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    limbs=_pairs(
        "15-13 13-11 16-14 14-12 11-12 5-11 6-12 5-6 5-7 6-8 7-9 8-10 "
        "1-2 0-1 0-2 1-3 2-4 3-5 4-6"
    ),
    mirrors=_pairs("1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16"),
    upper_body=tuple(range(11)),
)  # fmt: skip

KNOWN: Sequence[Skeleton] = (MPII, COCO)


def skeleton_of(num_joints: int) -> Skeleton:
    """Return the known skeleton of that many joints; UserError names those that are known."""
    for skeleton in KNOWN:
        if skeleton.num_joints == num_joints:
            return skeleton
    known = " and ".join(str(skeleton.num_joints) for skeleton in KNOWN)
    raise UserError(
        f"MODEL.NUM_JOINTS: {num_joints}: no skeleton of so many joints is known, only of {known}"
    )
