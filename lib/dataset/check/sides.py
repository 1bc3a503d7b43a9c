"""People whose left and right may be exchanged in the annotation."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from lib.dataset.records import Annotation
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import PIXELS_PER_SCALE

# 1 % of MPII's people exceed MIN_RATIO, and 70 % of them with an exchanged elbow or wrist.
MIN_RATIO = 1.5  # length of limbs as annotated, by that with left and right exchanged
MIN_WIDTH = 0.05  # of the box; joints that are nearer do not tell left from right
MIN_PEOPLE, MAX_EXCEPTIONS = 100, 0.01  # how often a rule must hold to have exceptions


def swapped_sides(annotation: Annotation, skeleton: Skeleton) -> dict[int, list[str]]:
    """Return the suspects by their index, each with the reasons.

    The limbs of a pair become much shorter by exchanging it; or a pair is turned against a pair
    near it, or its side of a joint next to it is another, in very few people only. A person whose
    whole left and right are exchanged may not be found.
    """
    suspects: defaultdict[int, list[str]] = defaultdict(list)
    for reason, people in _rules(_relative_joints(annotation), skeleton):
        for person in np.flatnonzero(people).tolist():
            suspects[person].append(reason)
    return suspects


def _relative_joints(annotation: Annotation) -> np.ndarray:
    """Return joints in sides of the box, float64 [N, J, 2]; nan if not annotated."""
    sides = [record.scale.max() * PIXELS_PER_SCALE for record in annotation.records]
    visible = np.stack([record.visible for record in annotation.records]) > 0
    joints = np.stack([record.joints for record in annotation.records]) / np.reshape(
        sides, (-1, 1, 1)
    )
    return np.where(visible[..., None], joints, np.nan)


def _rules(joints: np.ndarray, skeleton: Skeleton) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each reason with the people it holds for, bool [N]."""
    across = {pair: joints[:, pair[0]] - joints[:, pair[1]] for pair in skeleton.mirrors}
    near, adjacent = skeleton.joint_mask(3), skeleton.joint_mask(1)
    for pair, vector in across.items():
        names = " and ".join(skeleton.names[joint] for joint in pair)
        yield f"{names} fit their limbs better exchanged", _fit_better(joints, pair, skeleton)
        for joint in set(np.flatnonzero(adjacent[list(pair)].all(axis=0))) - set(pair):
            x, y = (joints[:, joint] - joints[:, pair].mean(axis=1)).T
            text = f"{names} are on the other sides of {skeleton.names[joint]}"
            yield text, _exceptions(vector, np.stack([-y, x], axis=1))
    for one, two in combinations(across, 2):
        if near[one[0], two[0]] and near[one[1], two[1]]:
            names = f"{skeleton.names[one[0]]} and {skeleton.names[two[0]]}"
            yield f"{names} are on different sides", _exceptions(across[one], across[two])


def _fit_better(joints: np.ndarray, pair: tuple[int, int], skeleton: Skeleton) -> np.ndarray:
    """Return for whom the limbs between a pair and others would be much shorter exchanged."""
    flip, straight, crossed = skeleton.flip_order, np.zeros(len(joints)), np.zeros(len(joints))
    for a, b in skeleton.limbs:
        others = {a, b, flip[a], flip[b]}
        if len(others) == 4 and others > set(pair):
            lengths = np.linalg.norm(
                joints[:, [a, flip[a], a, flip[a]]] - joints[:, [b, flip[b], flip[b], b]], axis=2
            )
            straight += np.nan_to_num(lengths[:, :2].sum(axis=1) + 0 * lengths.sum(axis=1))
            crossed += np.nan_to_num(lengths[:, 2:].sum(axis=1) + 0 * lengths.sum(axis=1))
    return (straight > MIN_RATIO * crossed) & (straight - crossed > 2 * MIN_WIDTH)


def _exceptions(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return whose vectors [N, 2] are opposed if nearly nobody's are, or aligned; bool [N].

    Vectors that are short or nearly at right angles do not count.
    """
    lengths = np.linalg.norm([first, second], axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (first * second).sum(axis=1) / lengths.prod(axis=0)
    counts = (lengths > MIN_WIDTH).all(axis=0) & (np.abs(cosines) > 0.3)
    exceptions = counts & (cosines * np.sign(cosines[counts].sum()) < 0)
    few = exceptions.sum() <= MAX_EXCEPTIONS * counts.sum() and counts.sum() >= MIN_PEOPLE
    return exceptions & bool(few)
