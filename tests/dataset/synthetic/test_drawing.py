"""Drawn people: the face is visible from the front, limbs are at the joints."""

import numpy as np

from lib.dataset.synthetic.drawing import Style, draw_person, sample_style
from lib.dataset.synthetic.pose import BONES, JOINT_LIMITS, build_pose, rotation, sample_pose


def test_the_face_is_visible_from_the_front_and_hair_from_behind() -> None:
    style = Style(
        skin=np.array([0.0, 0.0, 250.0]), hair=np.array([0.0, 250.0, 0.0]),
        shirt=np.full(3, 120.0), trousers=np.full(3, 90.0), shoes=np.full(3, 60.0),
        sleeve=0.95, trouser_leg=0.95, long_hair=False, girth=1.0,
    )  # fmt: skip
    rest = dict.fromkeys(JOINT_LIMITS, 0.0)
    reds, greens = [], []
    for yaw in (0, 180):
        image = np.zeros((300, 300, 3), np.uint8)
        pose = build_pose(BONES, rest, [rest, rest], [rest, rest], rotation(0, yaw, 0))
        draw_person(image, pose, style, np.array([150, 150]), 40)
        x, y = (pose.joints[8:10, :2].mean(axis=0) * 40 + 150).astype(int)
        _, green, red = image[y - 15 : y + 15, x - 8 : x + 9].mean(axis=(0, 1))
        reds.append(red)
        greens.append(green)
    assert reds[0] > 2 * greens[0]
    assert greens[1] > 2 * reds[1]


def test_limbs_are_drawn_at_the_joints() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        image = np.zeros((200, 200, 3), np.uint8)
        pose, style = sample_pose(rng), sample_style(rng, np.zeros(3))
        draw_person(image, pose, style, np.array([100, 100]), 16)
        for x, y in (pose.joints[:, :2] * 16 + 100).round().astype(int):
            if 0 < x < 199 and 0 < y < 199:
                assert image[y - 1 : y + 2, x - 1 : x + 2].any()
