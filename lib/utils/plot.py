"""Figures rendered without a display, in colors that differ for color-blind readers and in gray."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.utils.drawing import save_image
from lib.utils.files import write_bytes

# Okabe and Ito, "Color Universal Design", 2008, without their yellow, which is too pale on white;
# neighbors differ in lightness too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
GRAY = "#555555"
_DASHES = ("-", "--", ":", "-.", (0, (9, 2)), (0, (4, 1, 1, 1, 1, 1)))
FONT = 7.0  # points, for figures as wide as the text of a page
_DPI = 200


def line_style(index: int) -> dict[str, Any]:
    """Return color and dashes of the index-th line, the same in every plot; 42 differ."""
    color, dashes = _COLORS[index % len(_COLORS)], _DASHES[index % len(_DASHES)]
    return {"color": color, "linestyle": dashes, "linewidth": 1.3}


def new_panels(
    count: int = 1, columns: int = 1, *, height: float, width: float = 7.2, share: bool = False,
    **settings: Any,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Return a new figure and its `count` empty axes, row by row.

    `width` of the figure and `height` of a row are in inches; with `share` all axes have the same
    limits; `settings` as of `Axes.set`.
    """
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows), dpi=_DPI, layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.set(**settings)
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="both", labelsize=FONT)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_fontsize(FONT + 0.5)
    return figure, panels[:count]


def add_names(figure: Figure, names: Sequence[str]) -> None:
    """Name the lines of a figure, in the order of `line_style`, in a legend above its axes."""
    width, height = figure.get_size_inches()
    fitting = int(width / (0.5 + 0.065 * max(map(len, names))))  # inches: a line, a letter
    columns = max(1, min(len(names), fitting))
    figure.set_size_inches(width, height + 0.17 * math.ceil(len(names) / columns))
    figure.legend(
        [Line2D([], [], **line_style(index)) for index in range(len(names))],
        [name.replace("$", r"\$") for name in names],  # no math
        loc="outside upper center", ncols=columns, frameon=False, fontsize=FONT + 0.5,
        handlelength=3,
    )  # fmt: skip


def render(figure: Figure) -> np.ndarray:
    """Return the figure as an image, uint8 RGB [h, w, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figures(figures: Mapping[str, Figure], out: Path) -> list[Path]:
    """Write figures and return the files; UserError if they cannot be written.

    A folder gets `<name>.png` for each. A .pdf gets one page for each, another image all of them,
    below each other.
    """
    if out.suffix.lower() == ".pdf":
        content = io.BytesIO()
        with PdfPages(content, metadata={"CreationDate": None}) as pages:
            for figure in figures.values():
                pages.savefig(figure)
        write_bytes(out, content.getvalue())
        return [out]
    images = {out / f"{name}.png": render(figure) for name, figure in figures.items()}
    if out.suffix and not out.is_dir():
        images = {out: np.concatenate(list(images.values()))}
    for path, image in images.items():
        save_image(path, image)
    return list(images)
