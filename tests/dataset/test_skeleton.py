"""The joint mask of a skeleton and distances along its limbs."""

import pytest

from lib.dataset.skeleton import MPII, SKELETONS, Skeleton


@pytest.mark.parametrize("skeleton", SKELETONS.values())
@pytest.mark.parametrize("hops", [0, 1, 2])
def test_a_joint_attends_to_itself_its_mirror_and_its_neighbours(
    skeleton: Skeleton, hops: int
) -> None:
    mask = skeleton.joint_mask(hops)
    assert (mask == mask.T).all()
    assert mask.diagonal().all()
    for left, right in skeleton.mirrors:
        assert mask[left, right]
    for a, b in skeleton.limbs:
        mirrored = (a, b) in skeleton.mirrors or (b, a) in skeleton.mirrors
        assert mask[a, b] == (hops >= 1 or mirrored)
    assert mask.sum() > skeleton.num_joints
    assert skeleton.joint_mask(-1).all()
    assert not (skeleton.joint_mask(hops) & ~skeleton.joint_mask(hops + 1)).any()


def test_hops_are_counted_along_limbs() -> None:
    ankle, head, wrist = 0, 9, 15
    assert MPII.joint_mask(6)[ankle, head]
    assert not MPII.joint_mask(5)[ankle, head]
    assert not MPII.joint_mask(7)[ankle, wrist]
