"""Plot of time against the number of visual tokens."""

from collections.abc import Mapping, Sequence

import numpy as np

from lib.analysis.benchmark.rows import Row
from lib.utils.plot import FONT, line_style, new_panels, render


def growth_plot(rows: Mapping[int, Sequence[Row]]) -> np.ndarray:
    """Draw ms per image against visual tokens, a line for each pruning mode; uint8 RGB."""
    figure, (axes,) = new_panels(
        height=3.6, width=6.0, xscale="log", yscale="log", xlabel="visual tokens",
        ylabel="ms per image, fp32, batch 1",
    )  # fmt: skip
    modes = list(dict.fromkeys(row.prune for row in next(iter(rows.values()))))
    for line in zip(*rows.values(), strict=True):  # the same variants for each number of tokens
        mode, runtime, times = line[0].prune, line[0].runtime, [row.ms_per_image for row in line]
        axes.plot(
            list(rows), times, marker="o", color=line_style(modes.index(mode))["color"],
            linestyle="-" if runtime == "eager" else "--",
            label=f"{mode}, {runtime}: {times[-1]:.3g} ms",
        )  # fmt: skip
    axes.set_xticks(list(rows), [str(count) for count in rows])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=FONT)
    return render(figure)
