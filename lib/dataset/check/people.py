"""Faults of annotated people: their boxes, their joints, left and right."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from lib.dataset.check.images import Scan
from lib.dataset.records import Annotation, Record, column
from lib.dataset.skeleton import Skeleton
from lib.dataset.transforms import MARGIN, PIXELS_PER_SCALE
from lib.utils.text import join_names

Fault = tuple[str, str, int | None, str]  # kind, image, person (index in the annotation), text

MIN_INSIDE = 1 / 3  # of a crop's area; everyone of LSPET has more inside the image
MAX_DISTANCE = 0.03  # of the box, between the joints of a person who is annotated twice
# 1 % of the people of MPII and LSPET exceed both, and 3 of 4 with exchanged elbows.
MIN_RATIO = 1.5  # length of limbs as annotated, by that with left and right exchanged
MIN_GAIN = 0.1  # of the box, by which they become shorter


def people_faults(
    annotation: Annotation, scans: Mapping[str, Scan], skeleton: Skeleton
) -> Iterator[Fault]:
    """Yield what is wrong or suspicious about people, in the order of the annotation."""
    earlier: defaultdict[str, list[int]] = defaultdict(list)
    swapped = swapped_pairs(annotation, skeleton)
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


def swapped_pairs(annotation: Annotation, skeleton: Skeleton) -> dict[int, list[str]]:
    """Return the pairs, by person, whose limbs to others would be much shorter if exchanged.

    A whole arm or leg, exchanged with the other, is not found.
    """
    records, flip = annotation.records, skeleton.flip_order
    visible = column(records, "visible")[..., None] > 0
    joints = np.where(visible, column(records, "joints"), np.nan)
    sides = column(records, "scale").max(axis=1) * PIXELS_PER_SCALE
    suspects: defaultdict[int, list[str]] = defaultdict(list)
    for pair in skeleton.mirrors:
        lengths = np.zeros((2, len(joints)))  # as annotated, exchanged
        for a, b in skeleton.limbs:
            if len({a, b, flip[a], flip[b]}) == 4 and {a, b} & set(pair):
                ends = joints[:, [[b, flip[b]], [flip[b], b]]]
                limbs = np.linalg.norm(joints[:, [[a, flip[a]]]] - ends, axis=-1).sum(axis=-1)
                lengths += np.nan_to_num(limbs).T  # 0 unless all four joints are annotated
        annotated, exchanged = lengths
        longer = annotated > np.maximum(MIN_RATIO * exchanged, exchanged + MIN_GAIN * sides)
        for person in np.flatnonzero(longer).tolist():
            suspects[person].append(" and ".join(skeleton.names[joint] for joint in pair))
    return suspects
