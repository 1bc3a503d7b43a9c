"""The picture of how time grows with the number of visual tokens."""

from collections.abc import Mapping, Sequence

import numpy as np

from lib.core.benchmark import Row
from lib.utils.plot import new_axes, picture

_COLORS = {"none": "#555555", "connection": "#D55E00", "token": "#0072B2"}


def growth_picture(rows: Mapping[int, Sequence[Row]]) -> np.ndarray:
    """Draw ms an image against visual tokens, a line for each way of pruning; uint8 RGB."""
    axes = new_axes(
        xscale="log", yscale="log", xlabel="visual tokens", ylabel="ms an image, fp32, batch 1"
    )
    first = next(iter(rows.values()))
    for row in first:
        line = [
            next(r for r in part if (r.prune, r.runtime) == (row.prune, row.runtime)).ms_per_image
            for part in rows.values()
        ]
        label = row.prune if row.runtime == "eager" else f"{row.prune}, {row.runtime}"
        axes.plot(
            list(rows), line, marker="o", label=label, color=_COLORS[row.prune],
            linestyle="-" if row.runtime == "eager" else "--",
        )  # fmt: skip
        axes.annotate(f"{line[-1]:.0f}", (list(rows)[-1], line[-1]), xytext=(5, 0),
                      textcoords="offset points", fontsize=8, va="center")  # fmt: skip
    axes.set_xticks(list(rows), [str(count) for count in rows])
    axes.margins(x=0.12)
    axes.minorticks_off()
    axes.legend(frameon=False)
    return picture(axes)
