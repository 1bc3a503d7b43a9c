"""Faults of annotated people: their boxes, their joints, left and right."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from lib.dataset.check.images import Scan
from lib.dataset.records import Annotation, Record
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import MARGIN, PIXELS_PER_SCALE
from lib.utils.text import join_names

Fault = tuple[str, str, int | None, str]  # kind, image, person (index in the annotation), text

MIN_INSIDE = 1 / 3  # of a crop's area; everyone of LSPET has more inside the image
MAX_DISTANCE = 0.03  # of the box, between the joints of a person who is annotated twice
# Chosen so that 2 % of the people of MPII and LSPET are suspects, and most exchanged elbows.
MIN_RATIO = 1.5  # length of limbs as annotated, by that with left and right exchanged
MIN_GAIN, MIN_WIDTH = 0.1, 0.1  # of the box: by exchanging; between joints that tell the side
MIN_PEOPLE, MAX_EXCEPTIONS = 100, 0.02  # how often a rule must hold to have exceptions


def people_faults(
    annotation: Annotation, scans: Mapping[str, Scan], skeleton: Skeleton
) -> Iterator[Fault]:
    """Yield what is wrong or suspicious about people, in the order of the annotation."""
    earlier: defaultdict[str, list[int]] = defaultdict(list)
    swapped = swapped_sides(annotation, skeleton)
    for index, record in enumerate(annotation.records):
        faults = list(_place_faults(record, scans[record.image].size, skeleton))
        if index in swapped:
            faults.append(("left and right swapped?", join_names(swapped[index])))
        for other in earlier[record.image]:
            if _is_same(record, annotation.records[other]):
                faults.append(("person annotated twice", f"the same as person {other}"))
        earlier[record.image].append(index)
        yield from ((kind, record.image, index, text) for kind, text in faults)


def _place_faults(
    record: Record, size: tuple[int, int], skeleton: Skeleton
) -> Iterator[tuple[str, str]]:
    half, known = record.scale * PIXELS_PER_SCALE / 2, min(size) > 0
    shown = np.minimum(record.center + half, size) - np.maximum(record.center - half, 0)
    if known and shown.clip(0).prod() < MIN_INSIDE * 4 * half.prod():
        corners = np.rint([record.center - half, record.center + half]).astype(int).tolist()
        text = f"its crop is {corners[0]} to {corners[1]}, the image {size[0]}×{size[1]}"
        yield "box outside the image", text
    joints, visible = record.joints, record.visible > 0
    outside = ((joints < -1.5) | (joints > np.array(size) + 0.5)).any(axis=1) & visible & known
    far = (np.abs(joints - record.center) > MARGIN * half).any(axis=1) & visible
    for kind, wrong in (("joint outside the image", outside), ("joint far from its box", far)):
        if wrong.any():
            named = zip(np.array(skeleton.names)[wrong], joints[wrong].tolist(), strict=True)
            yield kind, join_names([f"{name} ({x:.0f}, {y:.0f})" for name, (x, y) in named])


def _is_same(first: Record, second: Record) -> bool:
    both = (first.visible > 0) & (second.visible > 0)
    distances = np.abs(first.joints - second.joints)[both]
    enough = 2 * both.sum() > ((first.visible > 0) | (second.visible > 0)).sum()
    return bool(enough and distances.max() < MAX_DISTANCE * first.scale.max() * PIXELS_PER_SCALE)


def swapped_sides(annotation: Annotation, skeleton: Skeleton) -> dict[int, list[str]]:
    """Return the people whose left and right may be exchanged, by index, each with the reasons.

    The limbs of a pair become much shorter by exchanging it; or, in very few people only, a pair
    is turned against one near it, or a joint next to it is on its other side. Someone whose whole
    left and right are exchanged may not be found.
    """
    sides = [record.scale.max() * PIXELS_PER_SCALE for record in annotation.records]
    visible = np.stack([record.visible for record in annotation.records]) > 0
    joints = np.stack([record.joints for record in annotation.records]).astype(np.float64)
    joints = np.where(visible[..., None], joints, np.nan) / np.reshape(sides, (-1, 1, 1))
    suspects: defaultdict[int, list[str]] = defaultdict(list)
    for reason, people in _reasons(joints, skeleton):
        for person in np.flatnonzero(people).tolist():
            suspects[person].append(reason)
    return suspects


def _reasons(joints: np.ndarray, skeleton: Skeleton) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each reason with whom it holds for, bool [N]; joints [N, J, 2] in sides of the box."""
    across = {pair: joints[:, pair[0]] - joints[:, pair[1]] for pair in skeleton.mirrors}
    near, adjacent = skeleton.joint_mask(4), skeleton.joint_mask(1)
    for pair, vector in across.items():
        names = " and ".join(skeleton.names[joint] for joint in pair)
        yield f"{names} would fit their limbs better exchanged", _fit_better(joints, pair, skeleton)
        for joint in set(np.flatnonzero(adjacent[list(pair)].all(axis=0))) - set(pair):
            x, y = (joints[:, joint] - joints[:, pair].mean(axis=1)).T
            text = f"{skeleton.names[joint]} is on the other side of {names}"
            yield text, _exceptions(vector, np.stack([-y, x], axis=1), min_length=0.02)
    for one, two in combinations(across, 2):
        if near[one[0], two[0]]:
            text = f"{skeleton.names[one[0]]} and {skeleton.names[two[0]]} are on different sides"
            yield text, _exceptions(across[one], across[two])


def _fit_better(joints: np.ndarray, pair: tuple[int, int], skeleton: Skeleton) -> np.ndarray:
    """Return for whom the limbs from a pair to others become much shorter by exchanging it."""
    flip, lengths = skeleton.flip_order, np.zeros((2, len(joints)))  # straight, crossed
    for a, b in skeleton.limbs:
        if len({a, b, flip[a], flip[b]}) == 4 and {a, b} & set(pair):
            ends = joints[:, [[b, flip[b]], [flip[b], b]]]
            limbs = np.linalg.norm(joints[:, [a, flip[a]]][:, None] - ends, axis=-1).sum(axis=-1)
            lengths += np.where(np.isnan(limbs).any(axis=1), 0, limbs.T)
    straight, crossed = lengths
    return (straight > MIN_RATIO * crossed) & (straight - crossed > MIN_GAIN)


def _exceptions(first: np.ndarray, second: np.ndarray, min_length: float = MIN_WIDTH) -> np.ndarray:
    """Return whose vectors [N, 2] are opposed if hardly anybody's are, or aligned; bool [N].

    Vectors that are short or nearly at right angles do not count.
    """
    lengths = np.linalg.norm([first, second], axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (first * second).sum(axis=1) / lengths.prod(axis=0)
    counts = (lengths > min_length).all(axis=0) & (np.abs(cosines) > 0.3)
    exceptions = counts & (cosines * np.sign(cosines[counts].sum()) < 0)
    holds = counts.sum() >= MIN_PEOPLE and exceptions.sum() <= MAX_EXCEPTIONS * counts.sum()
    return exceptions & bool(holds)
