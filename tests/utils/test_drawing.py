"""Drawing: positions, colors, copies, and atomic writes."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.utils import drawing
from lib.utils.errors import UserError

# Two arms that meet in the middle; a wrist and an elbow a side.
ARMS = SimpleNamespace(
    names=("left_wrist", "left_elbow", "neck", "right_elbow", "right_wrist"),
    limbs=((0, 1), (1, 2), (2, 3), (3, 4)),
)
JOINTS = np.array([[10.0, 40], [30, 20], [50, 30], [70, 20], [90, 40]])
GRAY = 90


def image(height: int = 60, width: int = 100) -> np.ndarray:
    return np.full((height, width, 3), GRAY, dtype=np.uint8)


def changed(drawn: np.ndarray) -> np.ndarray:
    return (drawn != GRAY).any(-1)


def center_of(drawn: np.ndarray) -> np.ndarray:
    """Mean (x, y) of what is drawn, each pixel weighted by how much it changed."""
    weight = np.abs(drawn.astype(float) - GRAY).sum(-1)
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def test_a_box_is_drawn_with_its_text_inside_the_image() -> None:
    original, box = image(), np.array([10.0, 20, 50, 30])
    drawn = changed(drawing.draw_box(original, box))
    assert drawn[20, 10:60].all()
    assert drawn[20:50, 60].all()
    assert not drawn[30:40, 20:50].any()
    assert not changed(original).any()
    assert changed(drawing.draw_box(original, box, "7")).sum() > drawn.sum()
    far = np.array([-1e9, -1e9, 2e9, 2e9])
    assert drawing.draw_box(original, far, "12").shape == original.shape


def test_draw_person_works_on_a_copy() -> None:
    original, joints, scores = image(), JOINTS.copy(), np.ones(5)
    for array in (original, joints, scores):
        array.setflags(write=False)
    assert changed(drawing.draw_person(original, joints, scores, ARMS)).any()


@pytest.mark.parametrize("score", [0.0, np.nan, -1.0, 0.3])
def test_a_joint_below_the_threshold_and_its_limbs_are_not_drawn(score: float) -> None:
    scores = np.array([1, 1, 1, 1, score])
    drawn = changed(drawing.draw_person(image(), JOINTS, scores, ARMS, threshold=0.5))
    assert drawn[:, :75].any()
    assert not drawn[:, 75:].any()
    assert not changed(drawing.draw_person(image(), JOINTS, np.full(5, score), ARMS, 0.5)).any()


def test_joints_and_limbs_have_the_color_of_their_side() -> None:
    drawn = drawing.draw_person(image(), JOINTS, np.ones(5), ARMS)
    left, middle, right = drawing.LEFT_COLOR, drawing.MIDDLE_COLOR, drawing.RIGHT_COLOR
    colors = [tuple(drawn[int(y), int(x)].tolist()) for x, y in JOINTS]
    assert colors == [left, left, middle, right, right]
    halfway = [JOINTS[[a, b]].mean(0).astype(int) for a, b in ARMS.limbs]
    assert [tuple(drawn[y, x].tolist()) for x, y in halfway] == [left, left, right, right]


def test_a_limb_from_left_to_right_has_the_color_of_the_middle() -> None:
    hips = SimpleNamespace(names=("left_hip", "right_hip"), limbs=((0, 1),))
    drawn = drawing.draw_person(image(), np.array([[10, 30], [90, 30]]), np.ones(2), hips)
    assert tuple(drawn[30, 50]) == drawing.MIDDLE_COLOR


@settings(max_examples=20, deadline=None)
@given(x=st.floats(20, 80), y=st.floats(20, 40))
def test_joints_are_drawn_between_pixels(x: float, y: float) -> None:
    dot = SimpleNamespace(names=("neck",), limbs=())
    drawn = drawing.draw_person(image(), np.array([[x, y]]), np.ones(1), dot)
    assert np.abs(center_of(drawn) - (x, y)).max() < 0.3


def test_a_person_has_a_dark_outline() -> None:
    drawn = drawing.draw_person(image(), JOINTS, np.ones(5), ARMS)
    assert (drawn.max(-1) < 0.6 * GRAY).any()


def test_a_larger_person_has_thicker_limbs() -> None:
    def thickness(zoom: int) -> int:
        drawn = drawing.draw_person(image(60 * zoom, 100 * zoom), JOINTS * zoom, np.ones(5), ARMS)
        return int(changed(drawn)[:, 20 * zoom].sum())

    assert thickness(20) > 3 * thickness(2)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(width=32) | st.floats(-150, 150), min_size=10, max_size=10),
    size=st.sampled_from([(1, 1), (1, 40), (60, 100)]),
)
def test_any_coordinates_can_be_drawn(values: list[float], size: tuple[int, int]) -> None:
    joints = np.array(values).reshape(5, 2)
    assert drawing.draw_person(image(*size), joints, np.ones(5), ARMS).shape == (*size, 3)


@pytest.mark.parametrize("far", [300.0, 30_000.0, 1e20])
def test_a_limb_to_a_joint_far_outside_has_its_direction(far: float) -> None:
    arm = SimpleNamespace(names=("left_elbow", "left_wrist"), limbs=((0, 1),))
    for direction in ([1, 0], [1, 1], [-1, 1]):
        joints = np.array([[50, 10], [50, 10] + far * np.array(direction)])
        drawn = drawing.draw_person(image(), joints, np.ones(2), arm)
        for step in range(15, 50):
            x, y = [50, 10] + step * np.array(direction)
            assert tuple(drawn[y, x]) == drawing.LEFT_COLOR
        assert changed(drawn).sum() < 800


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_a_joint_that_is_not_finite_is_not_drawn(lost: float) -> None:
    joints = JOINTS.copy()
    joints[0] = 5, lost
    shown = np.array([0, 1, 1, 1, 1])
    without = drawing.draw_person(image(), JOINTS, shown, ARMS)
    assert (drawing.draw_person(image(), joints, np.ones(5), ARMS) == without).all()


def test_heatmap_cells_are_drawn_at_their_pixels() -> None:
    # The outer cells are on the outer pixels, so cell 3 of 0..9 is pixel 33 of 0..99.
    heatmaps = np.zeros((3, 7, 10))
    heatmaps[0, 0, 3], heatmaps[1, 6, 9], heatmaps[2] = 1, 2, np.nan
    strip = drawing.draw_heatmaps(image(61, 100), heatmaps)
    tiles = [strip[:, start : start + 100].astype(int) for start in (0, 104, 208)]
    assert strip.shape == (61, 308, 3)
    for tile, (x, y) in zip(tiles, [(33, 0), (99, 60)], strict=False):
        brightest = np.unravel_index(tile.sum(-1).argmax(), tile.shape[:2])
        assert brightest == (y, x)
    assert (tiles[2] == GRAY // 2).all()  # nothing but the faded image


def test_heatmaps_are_red_where_weak_and_yellow_where_strong() -> None:
    colors = [
        drawing.draw_heatmaps(image(1, 1), np.full((1, 1, 1), value))[0, 0].astype(int)
        for value in (0.1, 1.0)
    ]
    red, green, _ = colors[0]
    assert red > green + 20  # a weak one is visible too
    red, green, blue = colors[1]
    assert min(red, green) > blue + 50


def test_a_heatmap_of_one_cell_and_an_image_of_one_pixel() -> None:
    assert drawing.draw_heatmaps(image(1, 1), np.ones((2, 4, 3))).shape == (1, 6, 3)
    assert drawing.draw_heatmaps(image(5, 6), np.ones((1, 1, 1))).shape == (5, 6, 3)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 12), columns=st.integers(1, 15))
def test_a_grid_has_every_tile_in_reading_order(count: int, columns: int) -> None:
    tiles = [np.full((3, 2, 3), index, dtype=np.uint8) for index in range(count)]
    page = drawing.grid(tiles, columns)
    across = min(count, columns)
    rows = -(-count // across)
    assert page.shape == (rows * 7 - 4, across * 6 - 4, 3)
    corners = page[::7, ::6, 0].ravel()
    assert corners[:count].tolist() == list(range(count))
    assert (corners[count:] == 255).all()


def test_save_image_writes_rgb_and_makes_the_folder(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "image.png"
    drawing.save_image(path, pixels * 0)
    drawing.save_image(path, pixels)
    assert (cv2.imread(str(path))[..., ::-1] == pixels).all()
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]


def test_save_image_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    drawing.save_image(tmp_path / "image.png", image())
    before = (tmp_path / "image.png").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"image\.png: .*No space left"):
        drawing.save_image(tmp_path / "image.png", image(9, 9))
    assert (tmp_path / "image.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["file/image.png", "folder.png", "image.txt", "image"])
def test_save_image_names_what_it_cannot_write(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=name):
        drawing.save_image(tmp_path / name, image())
    assert len(list(tmp_path.iterdir())) == 2


def test_draw_batch_draws_each_person_at_its_position() -> None:
    images = np.stack([image()] * 11)
    index = np.arange(11) % 5
    scores = 0.01 * np.eye(5)[index]  # one joint per crop, of a network that is hardly trained
    page = drawing.draw_batch(images, np.stack([JOINTS] * 11), scores, ARMS, max_images=10)
    height, width = 154, 256  # of a tile
    assert page.shape == (2 * height + 4, 8 * width + 28, 3)
    for number in range(10):
        row, column = divmod(number, 8)
        top, left = row * (height + 4), column * (width + 4)
        tile = page[top : top + height, left : left + width]
        center = (JOINTS[index[number]] + 0.5) * np.array([width / 100, height / 60]) - 0.5
        assert np.abs(center_of(tile) - center).max() < 0.2


def test_draw_batch_heatmaps_has_a_row_per_crop() -> None:
    page = drawing.draw_batch_heatmaps(np.stack([image()] * 9), np.zeros((9, 3, 6, 10)))
    assert page.shape == (8 * 77 + 28, 3 * 128 + 8, 3)
