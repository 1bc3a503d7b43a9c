"""Plots of a study; data in, figure out."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from lib.utils.plot import BLUE, FONT, VERMILION, new_panels


def scores_by_seed(scores: Mapping[str, Sequence[float]]) -> Figure:
    """Draw PCKh@0.5 in percent of each variant: a dot a seed, a bar at their mean, a row each."""
    height = 0.6 + 0.2 * len(scores)
    (axes,) = new_panels(1, 1, height=height, xlabel="PCKh@0.5 (%), a dot a seed")
    for row, values in enumerate(scores.values()):
        axes.plot(values, [row] * len(values), "o", color=BLUE, markersize=3.5, alpha=0.7)
        axes.plot(fmean(values), row, "|", color=VERMILION, markersize=9, markeredgewidth=1.8)
    axes.set_yticks(range(len(scores)), list(scores), fontsize=FONT, parse_math=False)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    return axes.figure
