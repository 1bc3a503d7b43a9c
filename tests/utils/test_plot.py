"""Line styles differ, names fit, and figures are written completely."""

from pathlib import Path

import cv2
import pytest

from lib.utils import plot
from lib.utils.errors import UserError

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
    image = plot.render(figure)
    (legend,) = figure.legends
    texts = legend.get_texts()
    assert [text.get_text().replace(r"\$", "$") for text in texts] == names
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= image.shape[1]
    assert box.y0 >= axes.get_window_extent().y1
    assert axes.get_window_extent().height > 300  # of 600: the names are small


def test_figures_go_to_a_folder_an_image_or_pages(tmp_path: Path) -> None:
    figures = {name: plot.new_panels(height=2)[0] for name in ("a", "b")}
    files = plot.save_figures(figures, tmp_path / "new/folder")
    assert [file.name for file in files] == ["a.png", "b.png"]
    shapes = [cv2.imread(str(file)).shape for file in files]
    (one,) = plot.save_figures(figures, tmp_path / "one.png")
    assert cv2.imread(str(one)).shape == (shapes[0][0] + shapes[1][0], *shapes[0][1:])
    (pages,) = plot.save_figures(figures, tmp_path / "other/pages.pdf")
    content = pages.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Count 2" in content
    for bad in (tmp_path / "a.xyz", one / "x.pdf"):
        with pytest.raises(UserError, match=bad.name):
            plot.save_figures(figures, bad)
