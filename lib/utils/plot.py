"""Figures rendered without a display, in colors that differ for color-blind readers and in gray."""

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
    columns = 3 if max(map(len, names)) < 30 else 1
    figure.set_size_inches(width, height + 0.17 * math.ceil(len(names) / columns))
    figure.legend(
        [Line2D([], [], **line_style(index)) for index in range(len(names))],
        [name.replace("$", r"\$") for name in names],  # no math
        loc="outside upper center", ncols=columns, frameon=False, fontsize=FONT + 0.5,
        handlelength=3,
    )  # fmt: skip


def render(figure: Figure, image_format: str = "png") -> bytes:
    """Return the content of a file with the figure, in a format of Matplotlib."""
    content = io.BytesIO()
    metadata = {"CreationDate": None} if image_format == "pdf" else None  # the same bytes each time
    figure.savefig(content, format=image_format, metadata=metadata)
    return content.getvalue()
