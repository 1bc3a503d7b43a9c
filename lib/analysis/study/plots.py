"""Plots of a study."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from lib.utils.plot import line_style, new_panels


def plot_scores(scores: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Plot scores by variant: a row for each, a dot for each seed, a bar at the mean."""
    label = f"{label}, a dot for each seed"
    figure, (axes,) = new_panels(height=0.6 + 0.2 * len(scores), xlabel=label)
    dots, bars = line_style(0)["color"], line_style(1)["color"]
    for row, values in enumerate(scores.values()):
        axes.plot(values, [row] * len(values), "o", color=dots, markersize=3.5, alpha=0.7)
        axes.plot(fmean(values), row, "|", color=bars, markersize=9, markeredgewidth=1.8)
    axes.set_yticks(range(len(scores)), list(scores), parse_math=False)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    return figure
