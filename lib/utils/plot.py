"""Plots as pictures, drawn without a screen, that also color-blind people and paper can read."""

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.utils.drawing import save_image
from lib.utils.files import write_bytes

# Hues that also color-blind people tell apart, in an order in which neighbours differ in lightness
# too: Okabe and Ito, "Color Universal Design", 2008. Their yellow is lost on white paper.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
BLACK, ORANGE, SKY = "#000000", "#E69F00", "#56B4E9"
GRAY = "#555555"
_COLORS = (BLUE, VERMILION, GREEN, PURPLE, BLACK, ORANGE, SKY)
_DASHES = (
    "-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)),
    (0, (4, 1, 1.2, 1, 1.2, 1)),
)  # fmt: skip
_DPI = 200
_MOST_LABELS = 12  # at the ends of lines; more could not be told apart
FONT = 7.0  # points, of figures that are as wide as the text of a page


def line_style(index: int) -> dict[str, Any]:
    """Color and dashes of the index-th line, the same in every plot; 42 differ."""
    return {
        "color": _COLORS[index % len(_COLORS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "linewidth": 1.3,
    }


def new_axes(names: Sequence[str] = (), **settings: Any) -> Axes:
    """Empty axes on a picture of their own; `names` and `settings` as of `new_panels`."""
    return new_panels(1, 1, height=3.6, width=6.0, names=names, **settings)[0]


def new_panels(
    rows: int, columns: int, *, height: float, width: float = 7.2, share: bool = False,
    names: Sequence[str] = (), **settings: Any,
) -> list[Axes]:  # fmt: skip
    """Empty axes, row by row, of one figure; `settings` as of `Axes.set`, sizes in inches.

    With `share` all have the same limits, and numbers at the outer edges only. Above them stands
    which line, in the order of `line_style`, has which of the `names`; a single one is a title.
    """
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    _add_legend(figure, names)
    panels = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    for axes in panels:
        axes.set(**settings)
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="both", labelsize=FONT)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set_fontsize(FONT + 0.5)
    return panels


def _add_legend(figure: Figure, names: Sequence[str]) -> None:
    """Add names, shown letter by letter, and make the figure higher by what they take."""
    if len(names) < 2:
        figure.suptitle("".join(names), fontsize=FONT + 1.5, parse_math=False)
        return
    width, height = figure.get_size_inches()
    fitting = int(width / (0.5 + 0.065 * max(map(len, names))))  # inches: a line, a letter
    columns = max(1, min(len(names), fitting))
    figure.set_size_inches(width, height + 0.17 * math.ceil(len(names) / columns))
    legend = figure.legend(
        [Line2D([], [], **line_style(index)) for index in range(len(names))],
        ["?"] * len(names),  # a name with a line below in front would be left out
        loc="outside upper center", ncols=columns,
        frameon=False, fontsize=FONT + 0.5, handlelength=3,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


def label_ends(labels: Mapping[Axes, Mapping[Line2D, str]]) -> None:
    """Write beside the last points of lines their labels, in their colors and clear of each other.

    All axes are of one figure; limits and scales must be set. Nothing is written beside axes that
    have too many labels to tell apart.
    """
    for axes, gap in _label_gaps(labels).items():
        ends = {line: _last_height(axes, line) for line in labels[axes]}
        lines = sorted((line for line in ends if math.isfinite(ends[line])), key=ends.get)
        heights = spread_out([ends[line] for line in lines], gap)
        for line, height in zip(lines, heights, strict=True):
            _beside(axes, height, labels[axes][line], line.get_color())


def list_beside(title: str, labels: Mapping[Axes, Mapping[Line2D, str]]) -> None:
    """Write labels of lines beside their axes, in the given order below a title.

    All axes are of one figure. Nothing is written beside axes that have too many labels.
    """
    for axes, gap in _label_gaps(labels).items():
        _beside(axes, 1 + gap / 2, title, GRAY)
        for row, (line, label) in enumerate(labels[axes].items()):
            _beside(axes, 1 - gap * (row + 0.6), label, line.get_color())


def _label_gaps(labels: Mapping[Axes, Mapping[Line2D, str]]) -> dict[Axes, float]:
    """Height of a label, as a share of their axes' height, where there are not too many."""
    fitting = [axes for axes, texts in labels.items() if 0 < len(texts) <= _MOST_LABELS]
    if fitting:
        with _any_letter():
            fitting[0].figure.draw_without_rendering()  # the layout decides how high the axes are
    height = 1.15 * FONT / 72 * _DPI
    return {axes: height / axes.get_window_extent().height for axes in fitting}


def _beside(axes: Axes, height: float, text: str, color: str) -> None:
    dark = [0.8 * part for part in to_rgb(color)]  # thin letters look lighter than lines
    axes.text(
        1.03, height, text, transform=axes.transAxes, color=dark, fontsize=FONT, va="center",
        parse_math=False,
    )  # fmt: skip


def spread_out(places: Sequence[float], gap: float) -> list[float]:
    """Move places, in rising order, the least that sets them a gap apart and within 0 to 1.

    Isotonic regression, by its minimax formula, of the places less the gaps before them.
    """
    count = len(places)
    shifted = np.asarray(places) - gap * np.arange(count)
    fitted = [
        max(min(shifted[a : b + 1].mean() for b in range(i, count)) for a in range(i + 1))
        for i in range(count)
    ]
    most = max(0.0, 1 - gap * (count - 1))
    return [float(min(max(place, 0), most) + gap * i) for i, place in enumerate(fitted)]


def _last_height(axes: Axes, line: Line2D) -> float:
    """How high a line ends, from 0 at the bottom of the axes to 1."""
    x, y = line.get_xydata()[-1]
    return float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1])


def picture(figure: Figure) -> np.ndarray:
    """What was drawn, uint8 RGB [h, w, 3]."""
    canvas = figure.canvas
    with _any_letter():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figures(figures: Mapping[str, Figure], out: Path) -> list[Path]:
    """Write figures and return the files: `<name>.png` each, where `out` is a folder.

    A .pdf gets a page a figure, another picture all of them below each other. UserError where
    nothing can be written.
    """
    if out.is_dir() or not out.suffix:
        files = {out / f"{name}.png": picture(figure) for name, figure in figures.items()}
    elif out.suffix.lower() == ".pdf":
        write_bytes(out, _pdf(figures.values()))
        return [out]
    else:
        files = {out: np.concatenate([picture(figure) for figure in figures.values()])}
    for path, drawn in files.items():
        save_image(path, drawn)
    return list(files)


def _pdf(figures: Iterable[Figure]) -> bytes:
    """A page a figure."""
    content = io.BytesIO()
    with _any_letter(), PdfPages(content, metadata={"CreationDate": None}) as pages:
        for figure in figures:
            pages.savefig(figure)
    return content.getvalue()


@contextmanager
def _any_letter() -> Iterator[None]:
    """Draw letters that the font lacks, in the name of a run for instance, as boxes, silently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield
