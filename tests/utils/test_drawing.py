"""People, heatmaps and grids are drawn where they belong, over copies, and saved whole."""

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


def picture(height: int = 60, width: int = 100) -> np.ndarray:
    return np.full((height, width, 3), GRAY, dtype=np.uint8)


def changed(image: np.ndarray) -> np.ndarray:
    return (image != GRAY).any(-1)


def center_of(image: np.ndarray) -> np.ndarray:
    """Mean (x, y) of what was drawn, each pixel as much as it changed."""
    weight = np.abs(image.astype(float) - GRAY).sum(-1)
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def test_draw_person_works_on_a_copy() -> None:
    image, joints, shown = picture(), JOINTS.copy(), np.ones(5)
    for array in (image, joints, shown):
        array.setflags(write=False)
    assert changed(drawing.draw_person(image, joints, shown, ARMS)).any()
    assert not changed(image).any()


@pytest.mark.parametrize("hidden", [0.0, np.nan, -1.0])
def test_a_hidden_joint_and_its_limbs_are_not_drawn(hidden: float) -> None:
    assert not changed(drawing.draw_person(picture(), JOINTS, np.full(5, hidden), ARMS)).any()
    shown = np.array([1, 1, 1, 1, hidden])
    drawn = changed(drawing.draw_person(picture(), JOINTS, shown, ARMS))
    assert drawn[:, :75].any()
    assert not drawn[:, 75:].any()


def test_each_joint_colors_its_pixel_by_its_side() -> None:
    drawn = drawing.draw_person(picture(), JOINTS, np.ones(5), ARMS)
    left, middle, right = drawing.LEFT_COLOR, drawing.MIDDLE_COLOR, drawing.RIGHT_COLOR
    colors = [tuple(drawn[int(y), int(x)].tolist()) for x, y in JOINTS]
    assert colors == [left, left, middle, right, right]
    assert len({left, middle, right}) == 3


def test_each_limb_has_the_color_of_its_side() -> None:
    drawn = drawing.draw_person(picture(), JOINTS, np.ones(5), ARMS)
    halfway = [JOINTS[[a, b]].mean(0).astype(int) for a, b in ARMS.limbs]
    colors = [tuple(drawn[y, x].tolist()) for x, y in halfway]
    assert colors == [drawing.LEFT_COLOR] * 2 + [drawing.RIGHT_COLOR] * 2


def test_a_limb_from_left_to_right_is_of_the_middle() -> None:
    hips = SimpleNamespace(names=("left_hip", "right_hip"), limbs=((0, 1),))
    drawn = drawing.draw_person(picture(), np.array([[10, 30], [90, 30]]), np.ones(2), hips)
    assert tuple(drawn[30, 50]) == drawing.MIDDLE_COLOR


@settings(max_examples=20, deadline=None)
@given(x=st.floats(20, 80), y=st.floats(20, 40))
def test_joints_are_drawn_between_pixels(x: float, y: float) -> None:
    dot = SimpleNamespace(names=("neck",), limbs=())
    drawn = drawing.draw_person(picture(), np.array([[x, y]]), np.ones(1), dot, thickness=6)
    assert np.abs(center_of(drawn) - (x, y)).max() < 0.15


def test_edges_are_smooth() -> None:
    drawn = drawing.draw_person(picture(), JOINTS, np.ones(5), ARMS)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 30  # six without shades between


def test_a_dark_outline_sets_the_person_off() -> None:
    drawn = drawing.draw_person(picture(), JOINTS, np.ones(5), ARMS)
    assert (drawn.max(-1) < 0.6 * GRAY).any()


def test_less_confidence_is_fainter() -> None:
    change = []
    for confidence in (0.2, 0.5, 1.0):
        drawn = drawing.draw_person(picture(), JOINTS, np.full(5, confidence), ARMS)
        change.append(np.abs(drawn[20, 30].astype(int) - GRAY).sum())
    assert change[0] < change[1] < change[2]


def test_a_bigger_person_is_drawn_thicker() -> None:
    def thickness(zoom: int) -> int:
        drawn = drawing.draw_person(picture(60 * zoom, 100 * zoom), JOINTS * zoom, np.ones(5), ARMS)
        return int(changed(drawn)[:, 20 * zoom].sum())

    assert thickness(20) > 3 * thickness(2)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(width=32) | st.floats(-150, 150), min_size=10, max_size=10),
    size=st.sampled_from([(1, 1), (1, 40), (60, 100)]),
)
def test_any_coordinates_can_be_drawn(values: list[float], size: tuple[int, int]) -> None:
    joints = np.array(values).reshape(5, 2)
    assert drawing.draw_person(picture(*size), joints, np.ones(5), ARMS).shape == (*size, 3)


@pytest.mark.parametrize("far", [300.0, 30_000.0, 1e20])
def test_a_limb_to_a_joint_far_outside_keeps_its_direction(far: float) -> None:
    arm = SimpleNamespace(names=("left_elbow", "left_wrist"), limbs=((0, 1),))
    for direction in ([1, 0], [1, 1], [-1, 1]):
        joints = np.array([[50, 10], [50, 10] + far * np.array(direction)])
        drawn = drawing.draw_person(picture(), joints, np.ones(2), arm)
        for step in range(15, 50):
            x, y = [50, 10] + step * np.array(direction)
            assert tuple(drawn[y, x]) == drawing.LEFT_COLOR
        assert changed(drawn).sum() < 800


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_a_joint_that_is_not_finite_is_not_drawn(lost: float) -> None:
    joints = JOINTS.copy()
    joints[0] = 5, lost
    shown = np.array([0, 1, 1, 1, 1])
    without = drawing.draw_person(picture(), JOINTS, shown, ARMS)
    assert (drawing.draw_person(picture(), joints, np.ones(5), ARMS) == without).all()


def test_heatmaps_lie_where_their_cells_are() -> None:
    # Both ends of heatmap and image fall together, so cell 3 of 0..9 is pixel 33 of 0..99.
    heatmaps = np.zeros((3, 7, 10))
    heatmaps[0, 0, 3], heatmaps[1, 6, 9], heatmaps[2] = 1, 2, np.nan
    strip = drawing.draw_heatmaps(picture(61, 100), heatmaps)
    tiles = [strip[:, start : start + 100].astype(int) for start in (0, 104, 208)]
    assert strip.shape == (61, 308, 3)
    for tile, (x, y) in zip(tiles, [(33, 0), (99, 60)], strict=False):
        brightest = np.unravel_index(tile.sum(-1).argmax(), tile.shape[:2])
        assert brightest == (y, x)
    assert (tiles[2] == GRAY // 2).all()  # nothing but the faded image


def test_heatmaps_go_from_the_faded_image_over_red_to_yellow() -> None:
    colors = [
        drawing.draw_heatmaps(picture(1, 1), np.full((1, 1, 1), value))[0, 0].astype(int)
        for value in (0.1, 1.0)
    ]
    red, green, _ = colors[0]
    assert red > green + 20  # even a faint one stands out
    red, green, blue = colors[1]
    assert min(red, green) > blue + 50


def test_a_heatmap_of_one_cell_and_an_image_of_one_pixel() -> None:
    assert drawing.draw_heatmaps(picture(1, 1), np.ones((2, 4, 3))).shape == (1, 6, 3)
    assert drawing.draw_heatmaps(picture(5, 6), np.ones((1, 1, 1))).shape == (5, 6, 3)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 12), columns=st.integers(1, 15))
def test_a_grid_holds_every_tile_in_reading_order(count: int, columns: int) -> None:
    tiles = [np.full((3, 2, 3), index, dtype=np.uint8) for index in range(count)]
    page = drawing.grid(tiles, columns)
    across = min(count, columns)
    rows = -(-count // across)
    assert page.shape == (rows * 7 - 4, across * 6 - 4, 3)
    corners = page[::7, ::6, 0].ravel()
    assert corners[:count].tolist() == list(range(count))
    assert (corners[count:] == 255).all()


def test_a_grid_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="needs images"):
        drawing.grid([], 3)
    with pytest.raises(ValueError, match="tile 1"):
        drawing.grid([picture(3, 4), picture(4, 3)], 2)


def test_save_image_writes_rgb_and_makes_the_folder(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "image.png"
    drawing.save_image(path, image * 0)
    drawing.save_image(path, image)
    assert (cv2.imread(str(path))[..., ::-1] == image).all()
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]


def test_save_image_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    drawing.save_image(tmp_path / "image.png", picture())
    before = (tmp_path / "image.png").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"image\.png: .*No space left"):
        drawing.save_image(tmp_path / "image.png", picture(9, 9))
    assert (tmp_path / "image.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["file/image.png", "folder.png", "image.txt", "image"])
def test_save_image_says_what_it_cannot_write(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=name):
        drawing.save_image(tmp_path / name, picture())
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("side", [30, 100, 400])
def test_draw_batch_draws_each_person_at_its_place(side: int) -> None:
    images = np.stack([picture()] * 5)
    shown = np.zeros((5, 5))
    shown[np.arange(5), np.arange(5)] = 1  # one joint a crop
    page = drawing.draw_batch(
        images, np.stack([JOINTS] * 5), shown, ARMS, columns=2, most=4, side=side
    )
    height = side * 6 // 10
    assert page.shape == (2 * height + 4, 2 * side + 4, 3)
    for index in range(4):
        row, column = divmod(index, 2)
        top, left = row * (height + 4), column * (side + 4)
        tile = page[top : top + height, left : left + side]
        center = (JOINTS[index] + 0.5) * side / 100 - 0.5
        assert np.abs(center_of(tile) - center).max() < 0.2


def test_draw_batch_heatmaps_has_a_row_a_crop() -> None:
    images = np.stack([picture()] * 5)
    page = drawing.draw_batch_heatmaps(images, np.zeros((5, 3, 6, 10)), most=2, side=50)
    assert page.shape == (2 * 30 + 4, 3 * 50 + 8, 3)


def test_painting_does_to_the_image_what_drawing_does_to_a_copy() -> None:
    image, shown = picture(), np.array([1, 0.4, 0, 0.9, 1])
    wanted = drawing.draw_person(image, JOINTS, shown, ARMS, thickness=5)
    drawing.paint_person(image, JOINTS, shown, ARMS, thickness=5)
    np.testing.assert_array_equal(image, wanted)


def test_opacity_mixes_the_picture_with_what_an_opaque_joint_shows() -> None:
    dot = SimpleNamespace(names=("neck",), limbs=())
    joint = np.array([[50.0, 30]])
    opaque, half = (
        drawing.draw_person(picture(), joint, np.array([shown]), dot, thickness=12)[30, 50]
        for shown in (1.0, 0.5)
    )
    assert tuple(opaque) == drawing.MIDDLE_COLOR
    # Under the joint lies its outline, a quarter black.
    np.testing.assert_allclose(half, (0.75 * GRAY + opaque.astype(float)) / 2, atol=1)
