"""Skeletons: joints, the limbs between them, and left-right pairs."""

import json
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import shortest_path


@dataclass(frozen=True)
class Skeleton:
    """The joints of a person as a graph; a joint is its index in `names`.

    `limbs` are the edges, `mirrors` the left-right pairs, `upper_body` the joints that a half-body
    crop of the upper half keeps (the others are the lower half). `sigmas` [J] are what OKS
    forgives, relative to the person's size; empty if unknown.
    """

    name: str
    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    mirrors: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...]
    sigmas: tuple[float, ...] = ()

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return len(self.names)

    @property
    def identity(self) -> str:
        """What a network depends on: the registered name, otherwise the joints as JSON."""
        if self == SKELETONS.get(self.name):
            return self.name
        return json.dumps({"names": self.names, "limbs": self.limbs, "mirrors": self.mirrors})

    @property
    def flip_order(self) -> list[int]:
        """The joint that replaces each joint in a mirrored image, [J]."""
        order = list(range(self.num_joints))
        for left, right in self.mirrors:
            order[left], order[right] = right, left
        return order

    @property
    def joint_weights(self) -> list[float]:
        """Weights of the joints in the loss, [J]: the HRNet family's values for COCO, by name."""
        weights = {"elbow": 1.2, "knee": 1.2, "wrist": 1.5, "ankle": 1.5}
        return [weights.get(name.rpartition("_")[2], 1.0) for name in self.names]

    def joint_mask(self, hops: int) -> np.ndarray:
        """Return which joints attend to each other, bool [J, J], symmetric.

        A joint attends to itself, its mirror, and joints at most `hops` limbs away; -1 is all.
        """
        graph = np.zeros((self.num_joints, self.num_joints))
        graph[tuple(np.reshape(self.limbs, (-1, 2)).astype(int).T)] = 1
        distances = shortest_path(graph, directed=False, unweighted=True)  # inf if unconnected
        mask = distances <= (np.inf if hops < 0 else hops)
        for left, right in self.mirrors:
            mask[left, right] = mask[right, left] = True
        return mask


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    """Parse `0-1 1-2` to ((0, 1), (1, 2))."""
    pairs = (pair.split("-") for pair in text.split())
    return tuple((int(first), int(second)) for first, second in pairs)


MPII = Skeleton(
    name="mpii",
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
    name="coco",
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
    sigmas=tuple(  # to the bit those of COCO's tool
        sigma / 10
        for sigma in (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62,
                      1.07, 1.07, 0.87, 0.87, 0.89, 0.89)
    ),
)  # fmt: skip

SKELETONS: dict[str, Skeleton] = {skeleton.name: skeleton for skeleton in (MPII, COCO)}
