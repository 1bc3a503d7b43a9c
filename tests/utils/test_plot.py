"""Line styles differ, names fit, and figures are repeatable."""

import pytest

from lib.utils import plot

NAMES = ["first", "_second", "$x^{$", "third/seed_0"]


def test_styles_differ_in_color_and_in_dashes() -> None:
    styles = [plot.line_style(index) for index in range(42)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 42
    assert len({style["color"] for style in styles[:6]}) == 6
    assert len({str(style["linestyle"]) for style in styles[:6]}) == 6


def test_panels_fill_rows_and_the_last_may_be_short() -> None:
    figure, panels = plot.new_panels(5, 3, height=2, share=True, xlim=(0, 7))
    assert figure.axes == panels
    assert len(panels) == 5
    assert figure.get_size_inches()[1] == 4
    panels[0].set_xlim(0, 3)
    assert panels[4].get_xlim() == (0, 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", [NAMES[:1], NAMES, NAMES * 6])
def test_names_are_all_shown_inside_the_figure(names: list[str]) -> None:
    figure, (axes,) = plot.new_panels(height=3, width=6)
    plot.add_names(figure, names)
    plot.render(figure)
    (legend,) = figure.legends
    texts = legend.get_texts()
    assert [text.get_text().replace(r"\$", "$") for text in texts] == names
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y0 >= axes.get_window_extent().y1
    assert axes.get_window_extent().height > 300  # of 600: the names are small


def test_a_figure_has_the_same_bytes_each_time() -> None:
    for image_format, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        figure, _ = plot.new_panels(height=2)
        content = plot.render(figure, image_format)
        assert content.startswith(start)
        assert plot.render(figure, image_format) == content
