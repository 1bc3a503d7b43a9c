"""Plots of the benchmark's rows: times by the number of visual tokens, scores by time."""

import math
from collections import defaultdict
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lib.analysis.benchmark.rows import Figures, Variant
from lib.utils.plot import FONT, line_style, new_panels

_MARKERS, _COLORS = "osD^vP*X<>ph8d", 7  # of `line_style`


def growth_plot(rows: Mapping[Variant, Figures]) -> Figure:
    """Draw ms per image against visual tokens, of `finer_patches`, a line for each mode."""
    figure, (axes,) = new_panels(
        height=3.6, width=6.0, xscale="log", yscale="log", xlabel="visual tokens",
        ylabel="ms per image, fp32, batch 1",
    )  # fmt: skip
    counts = [int(name.split()[0]) for name in dict.fromkeys(row.network for row in rows)]
    modes = list(dict.fromkeys(row.prune for row in rows))
    lines = defaultdict(list)
    for row, figures in rows.items():
        lines[row.prune, row.runtime].append(figures.ms)
    for (mode, runtime), times in lines.items():
        axes.plot(
            counts, times, marker="o", color=line_style(modes.index(mode))["color"],
            linestyle="-" if runtime == "eager" else "--",
            label=f"{mode}, {runtime}: {times[-1]:.3g} ms",
        )  # fmt: skip
    axes.set_xticks(counts, list(map(str, counts)))
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=FONT)
    return figure


def networks_plot(rows: Mapping[Variant, Figures]) -> Figure:
    """Draw the score of inference, or GMACs unless all scores are known, against its time.

    A network has a color in each pruning mode, a runtime and precision a marker.
    """
    batch = next(iter(rows)).batch
    rows = {row: one for row, one in rows.items() if (row.task, row.batch) == ("infer", batch)}
    has_scores = not any(math.isnan(figures.score) for figures in rows.values())
    figure, (axes,) = new_panels(
        height=max(3.6, 0.16 * len(rows)), width=9.0,  # with room for the legend
        xscale="log", yscale="linear" if has_scores else "log",
        xlabel=f"ms per image, batch {batch}", ylabel="score" if has_scores else "GMACs",
    )  # fmt: skip
    networks = list(dict.fromkeys((row.network, row.prune) for row in rows))
    ways = list(dict.fromkeys((row.runtime, row.precision) for row in rows))
    for row, figures in rows.items():
        index = networks.index((row.network, row.prune))
        marker = ways.index((row.runtime, row.precision)) + len(ways) * (index // _COLORS)
        axes.plot(
            figures.ms, figures.score if has_scores else figures.gmacs, linestyle="",
            color=line_style(index)["color"], marker=_MARKERS[marker % len(_MARKERS)], markersize=4,
            label=", ".join((*row[:2], *row[3:5])).replace("$", r"\$"),
        )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        if axis.get_scale() == "log":
            axis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.set_minor_formatter("{x:g}")
    figure.legend(loc="outside right upper", frameon=False, fontsize=FONT)
    return figure
