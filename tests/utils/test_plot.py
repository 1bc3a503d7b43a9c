"""Lines of a plot can be told apart, their labels keep clear, and figures are saved whole."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.utils import plot
from lib.utils.errors import UserError

NAMES = ["first", "_second", "$x^{$", "日本"]


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=12), st.floats(0.001, 0.08))
def test_places_keep_their_order_and_distance(places: list[float], gap: float) -> None:
    places = sorted(places)
    spread = plot.spread_out(places, gap)
    assert (np.diff(spread) >= gap - 1e-9).all()
    assert spread[0] >= -1e-9
    assert spread[-1] <= 1 + 1e-9


@given(st.lists(st.integers(0, 9), min_size=1, max_size=10, unique=True))
def test_places_that_are_far_apart_stay(steps: list[int]) -> None:
    places = [step / 10 for step in sorted(steps)]
    assert plot.spread_out(places, 0.05) == pytest.approx(places)


def test_two_places_part_evenly() -> None:
    assert plot.spread_out([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


def test_styles_differ_in_color_and_on_paper_in_dashes() -> None:
    styles = [plot.line_style(index) for index in range(42)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 42
    assert len({style["color"] for style in styles[:6]}) == 6
    assert len({str(style["linestyle"]) for style in styles[:6]}) == 6


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_labels_are_in_the_order_of_the_ends_and_do_not_touch(scale: str) -> None:
    axes = plot.new_axes(list("abcd"), yscale=scale)
    ends = [3.0, 1.0, 3.01, float("nan")]
    lines = [axes.plot([0, 1], [2, end])[0] for end in ends]
    plot.label_ends({axes: dict(zip(lines, "abcd", strict=True))})
    plot.picture(axes.figure)
    texts = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert set(texts) == {"a", "b", "c"}  # a line that ends nowhere has no label
    low, middle, high = texts["b"], texts["a"], texts["c"]
    assert low.y1 <= middle.y0 < middle.y1 <= high.y0
    end = axes.transData.transform((1, 1.0))[1]
    assert low.y0 < end < low.y1
    assert low.x0 >= axes.get_window_extent().x1


def test_a_list_beside_axes_reads_from_the_top() -> None:
    axes = plot.new_axes()
    lines = [axes.plot([0, 1], [0, end])[0] for end in (1, 2)]
    plot.list_beside("title", {axes: dict(zip(lines, "ab", strict=True))})
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert heights["title"] > heights["a"] > heights["b"]


def test_too_many_labels_are_left_out() -> None:
    axes = plot.new_axes()
    plot.label_ends({axes: {axes.plot([0, 1])[0]: "end" for _ in range(40)}})
    assert not axes.texts


@pytest.mark.filterwarnings("error")
def test_names_are_shown_letter_by_letter_and_cost_the_axes_no_height() -> None:
    few, many = plot.new_axes(NAMES[:2]), plot.new_axes(NAMES * 6)
    for axes in (few, many):
        plot.picture(axes.figure)
    assert [text.get_text() for text in many.figure.legends[0].get_texts()] == NAMES * 6
    heights = [axes.get_window_extent().height for axes in (few, many)]
    assert heights[1] == pytest.approx(heights[0], rel=0.05)
    assert plot.new_axes(NAMES[2:3]).figure.get_suptitle() == NAMES[2]


def test_figures_go_to_a_folder_a_picture_or_pages(tmp_path: Path) -> None:
    figures = {name: plot.new_axes().figure for name in ("a", "b")}
    files = plot.save_figures(figures, tmp_path / "new/folder")
    assert [file.name for file in files] == ["a.png", "b.png"]
    shapes = [cv2.imread(str(file)).shape for file in files]
    (one,) = plot.save_figures(figures, tmp_path / "one.png")
    assert cv2.imread(str(one)).shape == (shapes[0][0] + shapes[1][0], *shapes[0][1:])
    (pages,) = plot.save_figures(figures, tmp_path / "other/pages.pdf")
    content = pages.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Count 2" in content
    with pytest.raises(UserError, match=r"a\.xyz"):
        plot.save_figures(figures, tmp_path / "a.xyz")
    with pytest.raises(UserError, match=r"x\.pdf"):
        plot.save_figures(figures, one / "x.pdf")
