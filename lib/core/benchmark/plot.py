"""The picture of how time grows with the number of visual tokens."""

from collections.abc import Mapping, Sequence

import numpy as np

from lib.core.benchmark.measure import Row
from lib.utils.plot import BLUE, GRAY, VERMILION, label_ends, new_axes, picture

_COLORS = {"none": GRAY, "connection": VERMILION, "token": BLUE}


def growth_picture(rows: Mapping[int, Sequence[Row]]) -> np.ndarray:
    """Draw ms an image against visual tokens, a line for each way of pruning; uint8 RGB."""
    axes = new_axes(
        xscale="log", yscale="log", xlabel="visual tokens", ylabel="ms an image, fp32, batch 1"
    )
    ends = {}
    for row in next(iter(rows.values())):
        times = [
            next(r for r in part if (r.prune, r.runtime) == (row.prune, row.runtime)).ms_per_image
            for part in rows.values()
        ]
        (line,) = axes.plot(
            list(rows), times, marker="o", color=_COLORS[row.prune],
            linestyle="-" if row.runtime == "eager" else "--",
        )  # fmt: skip
        runtime = "" if row.runtime == "eager" else f", {row.runtime}"
        ends[line] = f"{row.prune}{runtime} {times[-1]:.0f}"
    axes.set_xticks(list(rows), [str(count) for count in rows])
    axes.minorticks_off()
    label_ends({axes: ends})
    return picture(axes.figure)
