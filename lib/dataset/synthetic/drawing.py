"""Drawing of synthetic people: body, clothes, face, background and occluders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator

from lib.dataset.synthetic.pose import ARM_JOINTS, LEG_JOINTS, Pose

HEAD_RADII = np.array([0.35, 0.46, 0.41])  # half width, height and depth, in head lengths

# Colours are BGR, as OpenCV's.
SKINS = ((180, 205, 240), (150, 185, 228), (120, 160, 210), (90, 130, 185), (60, 92, 140))
HAIRS = ((25, 25, 30), (28, 40, 60), (40, 65, 100), (85, 145, 190), (35, 70, 140), (150, 150, 155))

# Convex hulls of spheres, each [K, 4] (x, y, z, radius), and their colour.
Layer = tuple[Sequence[np.ndarray], np.ndarray]
Part = Sequence[Layer]  # drawn together, later layers on top of earlier ones

_CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 20, endpoint=False)) for f in (np.cos, np.sin)], 1)
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


@dataclass(frozen=True)
class Style:
    """Colours (BGR) and clothes; `girth` multiplies the thickness of trunk and limbs."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    sleeve: float  # covered share of the arm
    trouser_leg: float  # covered share of the leg
    long_hair: bool
    girth: float


def sample_style(rng: Generator, background: np.ndarray) -> Style:
    """Sample colours and clothes that contrast with a background of that mean colour (BGR, [3])."""
    skin = np.array(SKINS[rng.integers(len(SKINS))]) + rng.normal(0, 6, 3)
    shirt = _sample_color(rng, [background, skin])
    return Style(
        skin=skin,
        hair=np.array(HAIRS[rng.integers(len(HAIRS))]) + rng.normal(0, 5, 3),
        shirt=shirt,
        trousers=_sample_color(rng, [background, skin, shirt]),
        shoes=rng.choice([25, 60, 120, 225]) + rng.normal(0, 12, 3),
        sleeve=rng.choice([0.15, 0.3, 0.3, 0.95]),
        trouser_leg=rng.choice([0.35, 0.95, 0.95]),
        long_hair=rng.random() < 0.4,
        girth=rng.uniform(0.88, 1.18),
    )


def draw_scene(
    rng: Generator, pose: Pose, origin: np.ndarray, size: float, image_size: int
) -> np.ndarray:
    """Draw a person, background and occluders as a camera sees them: uint8 [S, S, 3], BGR."""
    image = draw_background(rng, image_size)
    draw_person(image, pose, sample_style(rng, _mean_color(image)), origin, size)
    for _ in range(rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15])):  # occluders
        center = origin + rng.normal(0, 2, 2) * size
        color = _mean_color(image) + rng.normal(0, 45, 3)
        _draw_shape(rng, image, center, size * rng.uniform(0.4, 1.4), color)
    image = cv2.GaussianBlur(image, (0, 0), image_size / 112 * rng.uniform(0.25, 0.6))
    grain = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(1, 5)
    image = image * rng.uniform(0.85, 1.12) + rng.normal(0, 6) + grain
    return image.clip(0, 255).astype(np.uint8)


def draw_person(
    image: np.ndarray, pose: Pose, style: Style, origin: np.ndarray, size: float
) -> None:
    """Draw a body into an image (uint8 [H, W, 3], BGR), far parts first and a little darker.

    `origin` is the pelvis (x, y, pixels), `size` the length of a head in pixels.
    """
    canvas = _Canvas(image, origin, size)
    torso = _torso(pose, style)
    parts = [(_depth(part), partial(_draw_part, canvas, part)) for part in _limbs(pose, style)]
    parts.append((_depth(torso), partial(_draw_torso, canvas, torso, pose, style)))
    parts.append((pose.joints[8:10, 2].mean(), partial(_draw_head, canvas, pose, style)))
    parts.sort(key=lambda entry: -entry[0])
    farthest, nearest = parts[0][0], parts[-1][0]
    for depth, draw in parts:
        draw(1 - 0.25 * (depth - nearest) / max(farthest - nearest, 1.5))


def draw_background(rng: Generator, size: int) -> np.ndarray:
    """Draw a textured square image, uint8 [size, size, 3]: gradient, shapes, stripes, noise."""
    corners = rng.uniform(40, 215) + rng.normal(0, 16, (2, 2, 3))
    image: np.ndarray = cv2.resize(corners.astype(np.float32), (size, size))
    for _ in range(rng.integers(0, 7)):
        shade = _mean_color(image) + rng.normal(0, 20, 3)
        _draw_shape(rng, image, rng.uniform(0, size, 2), size * rng.uniform(0.1, 0.45), shade)
    if rng.random() < 0.35:
        angle, period = rng.uniform(0, np.pi), size * rng.uniform(0.05, 0.25)
        y, x = np.mgrid[:size, :size].astype(np.float32)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        image += rng.uniform(5, 16) * (np.sign(wave) if rng.random() < 0.5 else wave)[..., None]
    for cells in (4, 12, 40):
        noise = rng.normal(0, rng.uniform(2, 10), (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (size, size))
    return image.clip(0, 255).astype(np.uint8)


def _mean_color(image: np.ndarray) -> np.ndarray:
    """Mean colour [3]; OpenCV is many times as fast as numpy here."""
    return np.array(cv2.mean(image)[:3])


def _sample_color(rng: Generator, others: Sequence[np.ndarray]) -> np.ndarray:
    """Sample a colour that contrasts with others: of six, the one with the largest distance."""
    tries = np.stack([rng.uniform(15, 240, 3) for _ in range(6)])
    grey = tries.mean(axis=1, keepdims=True)
    tries = grey + (tries - grey) * rng.uniform(0.2, 0.85)
    distances = np.linalg.norm(tries[:, None] - np.stack(others), axis=-1).min(axis=1)
    return tries[distances.argmax()]


def _depth(part: Part) -> float:
    """Mean distance of the lowest layer behind the pelvis."""
    return float(np.mean([hull[:, 2].mean() for hull in part[0][0]]))


def _hull(*spheres: tuple[np.ndarray, float]) -> np.ndarray:
    return np.stack([np.append(center, radius) for center, radius in spheres])


def _torso(pose: Pose, style: Style) -> Part:
    """Return the trunk in trousers and shirt."""
    right_hip, left_hip, pelvis, thorax = pose.joints[[2, 3, 6, 7]]
    right, left = 0.75 * (right_hip - pelvis), 0.75 * (left_hip - pelvis)
    waist, girth = pelvis - 0.45 * pose.chest[:, 1], style.girth
    belt = ((waist + right, 0.25 * girth), (waist + left, 0.25 * girth))
    seat = ((pelvis + right, 0.3 * girth), (pelvis + left, 0.3 * girth))
    shoulders = ((thorax + 0.62 * (end - thorax), 0.26 * girth) for end in pose.joints[[12, 13]])
    return [([_hull(*belt, *seat)], style.trousers), ([_hull(*belt, *shoulders)], style.shirt)]


def _limbs(pose: Pose, style: Style) -> Iterator[Part]:
    """Yield all parts of a body except trunk and head."""
    thorax, neck, top = pose.joints[7:10]
    skull = (neck + top) / 2
    yield [([_hull((thorax, 0.21), (skull, 0.19))], style.skin)]
    if style.long_hair:
        back = skull + 0.2 * pose.head[:, 2]
        hanging = thorax + pose.chest @ np.array([0, 0.1, 0.36])
        yield [([_hull((back, 0.33), (hanging, 0.26))], style.hair)]
    for side in (0, 1):  # right, left; a watch on the left
        yield _arm(pose.joints[ARM_JOINTS[side]], pose.fingers[side], style, watch=side == 1)
    for side in (0, 1):
        yield _leg(pose.joints[LEG_JOINTS[side]], pose.toes[side], style)


def _arm(joints: np.ndarray, fingers: np.ndarray, style: Style, watch: bool) -> Part:
    _, elbow, wrist = joints
    radii = np.array([0.21, 0.16, 0.11]) * style.girth
    hand = _hull((wrist, radii[2]), (fingers, 0.12))
    arm = ([*_bones(joints, radii), hand], style.skin)
    layers = [arm, (_cloth(joints, radii, style.sleeve), style.shirt)]
    if watch:
        band = [(elbow + share * (wrist - elbow), radii[2] + 0.03) for share in (0.88, 0.98)]
        layers.append(([_hull(*band)], np.full(3, 35.0)))
    return layers


def _leg(joints: np.ndarray, toes: np.ndarray, style: Style) -> Part:
    radii = np.array([0.31, 0.21, 0.14]) * style.girth
    leg = (_bones(joints, radii), style.skin)
    trousers = (_cloth(joints, radii, style.trouser_leg), style.trousers)
    shoe = ([_hull((joints[2], 0.17), (toes, 0.13))], style.shoes)
    # A shoe that points at the viewer occludes the hem of the trousers, otherwise the hem the shoe.
    return [leg, trousers, shoe] if toes[2] < joints[2, 2] else [leg, shoe, trousers]


def _bones(joints: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hulls of a limb's two bones; joints [3, 3], radii [3]."""
    spheres = np.column_stack([joints, radii])
    return spheres[:2], spheres[1:]


def _cloth(joints: np.ndarray, radii: np.ndarray, share: float) -> list[np.ndarray]:
    """Return the hulls of a sleeve, a little wider, over the first `share` of a limb."""
    hulls = []
    for bone, hull in enumerate(_bones(joints, radii + 0.025)):
        end = min(2 * share - bone, 1)
        if end > 0:
            hulls.append(np.stack([hull[0], hull[0] + end * (hull[1] - hull[0])]))
    return hulls


@dataclass(frozen=True)
class _Canvas:
    """An image and the projection into it: pelvis at `origin`, `size` pixels per head length."""

    image: np.ndarray
    origin: np.ndarray
    size: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels [.., 2] of points of a body [.., 3], by orthographic projection."""
        return points[..., :2] * self.size + self.origin

    def fill_hull(self, centers: np.ndarray, radii: np.ndarray, color: np.ndarray) -> None:
        """Fill the convex hull of discs: centers [K, 2] and radii [K, 1] in pixels."""
        points = centers[:, None] + radii[:, None] * _CIRCLE
        _fill(self.image, cv2.convexHull(points.reshape(-1, 2).astype(np.float32)), color)


def _fill(image: np.ndarray, polygon: np.ndarray, color: np.ndarray) -> None:
    points = np.round(polygon * (1 << _SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(image, points, color.clip(0, 255).tolist(), cv2.LINE_AA, _SHIFT)


def _draw_part(canvas: _Canvas, part: Part, light: float) -> None:
    """Draw a part with a dark edge, which separates parts of one colour, lit from above left."""
    edge = max(0.035 * canvas.size, 0.3)
    for hulls, color in part:
        # Far first; all edges before all fillings, so that no edge crosses a knee.
        hulls = sorted(hulls, key=lambda hull: -hull[:, 2].mean())
        discs = [(canvas.project(hull), hull[:, 3:] * canvas.size) for hull in hulls]
        for centers, radii in discs:
            canvas.fill_hull(centers, radii, color * light * 0.62)
        for centers, radii in discs:
            canvas.fill_hull(centers, (radii - edge).clip(0.5), color * light)
        for centers, radii in discs:
            canvas.fill_hull(centers - 0.2 * radii, radii * 0.5, color * light * 1.05 + 7)


def _draw_torso(canvas: _Canvas, torso: Part, pose: Pose, style: Style, light: float) -> None:
    """Draw the trunk, and neckline, buttons and left pocket if the chest faces the viewer."""
    _draw_part(canvas, torso, light)
    if pose.chest[2, 2] < 0.2:
        return
    contrast = style.shirt * 0.55 if style.shirt.mean() > 90 else style.shirt + 60
    patches = (
        ([[-0.2, -0.12], [0.2, -0.12], [0, 0.3]], style.skin),
        ([[-0.025, 0.3], [0.025, 0.3], [0.025, 1.35], [-0.025, 1.35]], contrast),
        ([[0.17, 0.45], [0.43, 0.45], [0.43, 0.75], [0.17, 0.75]], contrast),
    )
    for corners, color in patches:
        flat = np.array(corners)
        # The chest is round: its sides are farther back.
        front = np.column_stack([flat, -0.28 + 0.5 * flat[:, 0] ** 2])
        _fill(canvas.image, canvas.project(pose.joints[7] + front @ pose.chest.T), color * light)


def _draw_head(canvas: _Canvas, pose: Pose, style: Style, light: float) -> None:
    """Draw the head by ray casting: an ellipsoid with a face in front, hair above and behind."""
    size = canvas.size
    center = canvas.project(0.46 * pose.joints[8] + 0.54 * pose.joints[9])
    low = np.floor(center - 0.55 * size).astype(int).clip(0)
    high = np.ceil(center + 0.55 * size).astype(int) + 1
    patch = canvas.image[low[1] : high[1], low[0] : high[0]]
    y, x = np.mgrid[: patch.shape[0], : patch.shape[1]]
    pixels = (np.stack([x + low[0], y + low[1]], axis=-1) - center) / size
    # In coordinates in which the head is the unit ball, the ray of a pixel is start + t·along.
    to_ball = pose.head.T / HEAD_RADII[:, None]
    start, along = pixels @ to_ball[:, :2].T, to_ball[:, 2]
    square = along @ along
    nearest = start @ along / square
    off_axis = (start**2).sum(axis=-1) - square * nearest**2  # squared distance from ray to center
    depth = np.sqrt((1 - off_axis).clip(0))
    ball = start - (nearest + depth / np.sqrt(square))[..., None] * along
    color = _head_colors(ball, style, 0.35 * size) * (light * (0.8 + 0.2 * depth))[..., None]
    cover = ((1 - np.sqrt(off_axis)) * 0.4 * size + 0.5).clip(0, 1)[..., None]
    patch[:] = (patch * (1 - cover) + color * cover).clip(0, 255)


def _head_colors(ball: np.ndarray, style: Style, sharpness: float) -> np.ndarray:
    """Return the colour of points [.., 3] of the head's unit ball; edges are 1/sharpness wide."""

    def blend(color: np.ndarray, over: np.ndarray, margin: np.ndarray) -> np.ndarray:
        share = (margin * sharpness + 0.5).clip(0, 1)[..., None]
        return color * (1 - share) + over * share

    x, y, z = ball[..., 0], ball[..., 1], ball[..., 2]
    hair = np.maximum(z + 0.12, -y - 0.5) - 0.3 * (y - 0.5).clip(0)
    color = blend(np.broadcast_to(style.skin, ball.shape), style.hair, hair)
    ears = 0.2 - np.sqrt((abs(x) - 1) ** 2 + (y - 0.05) ** 2 + z**2)
    color = blend(color, style.skin * 0.9, ears)
    in_front = np.where(z < 0, 0, -9)
    eyes = 0.15 - np.hypot(abs(x) - 0.4, 1.2 * (y + 0.1)) + in_front
    nose = 0.1 - np.hypot(x, 0.5 * (y - 0.15)) + in_front
    mouth = 0.1 - np.hypot(0.35 * x, y - 0.52) + in_front
    color = blend(color, np.array([30, 30, 35]), eyes)
    color = blend(color, style.skin * 0.8, nose)
    return blend(color, style.skin * 0.45 + np.array([20, 15, 65]), mouth)


def _draw_shape(
    rng: Generator, image: np.ndarray, center: np.ndarray, radius: float, color: np.ndarray
) -> None:
    """Draw a disc, a slanted box or a post of about that radius (pixels)."""
    shape = rng.choice(["disc", "box", "post"])
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    outline = {"disc": _CIRCLE, "box": square, "post": square * [0.25, 5]}[shape]
    angle = rng.normal(0, 0.05 if shape == "post" else 0.6)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretched = outline * [1, rng.uniform(0.5, 1.3)]
    for share, shade in ((1, 0.8), (0.88, 1)):
        _fill(image, center + radius * share * stretched @ turn, color * shade)
