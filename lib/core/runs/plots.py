"""Plots of runs: the way of their training, PCKh against threshold, errors; data in, figure out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.core.evaluate import JOINTS, NOT_IN_MEAN, PARTS, normalised_errors, pckh_by_part
from lib.core.runs.read import History, Run, Scored
from lib.utils.plot import (
    FONT,
    GRAY,
    label_ends,
    line_style,
    list_beside,
    new_axes,
    new_panels,
)

THRESHOLDS = np.linspace(0, 0.5, 51)  # head sizes; the family's 0.00, 0.01, …
_FARTHEST = 1.0  # head sizes, of the errors that are shown
_FEW = 30  # epochs, so that each is marked
_Y_LABELS = {
    "Mean": "PCKh@0.5 (%)",
    "Mean@0.1": "PCKh@0.1 (%)",
    "loss": "training loss",
    "rate": "learning rate",
}


def draw_runs(runs: Sequence[Run]) -> dict[str, Figure]:
    """Draw what can be drawn of runs: `training`, `pckh` and `errors`, a run in one style in all.

    A run without predictions or annotation has its scores alone in `pckh`.
    """
    histories, tested = [run.history for run in runs], [run.tested for run in runs]
    names = labels(runs)
    figures = {}
    if any(histories):
        figures["training"] = _training(names, histories)
    if any(tested):
        figures["pckh"] = _pckh(names, tested)
    if any(test and test.gt for test in tested):
        figures["errors"] = _errors(names, tested)
    return figures


def labels(runs: Sequence[Run]) -> list[str]:
    """The runs' names and, where the people differ that they were tested on, who these are."""
    tested = {run.name: run.tested for run in runs if run.tested}
    data = {test.fingerprint for test in tested.values()}
    if len(data) < 2:
        return [run.name for run in runs]
    alike = len({test.people for test in tested.values()}) < len(data)
    told = {
        name: f"{name} ({test.people}{f', data {test.fingerprint[:6]}' if alike else ''})"
        for name, test in tested.items()
    }
    return [told.get(run.name, run.name) for run in runs]


def scores_by_epoch(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Draw PCKh@0.5 in percent after each epoch, a named line each."""
    axes = new_axes(list(curves), xlabel="epochs of training", ylabel=_Y_LABELS["Mean"])
    _draw_scores(axes, [dict(enumerate(scores, 1)) for scores in curves.values()])
    return axes.figure


def _training(names: Sequence[str], histories: Sequence[History]) -> Figure:
    shown = [key for key in _Y_LABELS if any(key in history for history in histories)]
    rows = math.ceil(len(shown) / 2)
    panels = new_panels(rows, 2, height=2.4 * rows, names=names, xlabel="epochs of training")
    for axes, key in zip(panels, shown, strict=False):
        axes.set_ylabel(_Y_LABELS[key])
        draw = _draw_scores if key.startswith("Mean") else _draw_amounts
        draw(axes, [history.get(key, {}) for history in histories])
    for axes in panels[len(shown) :]:
        axes.remove()
    return panels[0].figure


def _draw_by_epoch(axes: Axes, lines: Sequence[Mapping[int, float]]) -> list[Line2D]:
    """Draw values by epoch, a line each."""
    drawn = []
    for index, values in enumerate(lines):
        epochs = sorted(values)
        heights = [values[epoch] if math.isfinite(values[epoch]) else math.nan for epoch in epochs]
        marker = "o" if len(epochs) <= _FEW else None
        drawn += axes.plot(epochs, heights, **line_style(index), marker=marker, markersize=3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return drawn


def _draw_amounts(axes: Axes, lines: Sequence[Mapping[int, float]]) -> None:
    """Draw values by epoch, on a scale of powers where they span much."""
    _draw_by_epoch(axes, lines)
    heights = [height for values in lines for height in _finite(values)]
    if heights and 0 < 3 * min(heights) < max(heights):
        axes.set_yscale("log")


def _draw_scores(axes: Axes, lines: Sequence[Mapping[int, float]]) -> None:
    """Draw percents by epoch with their last ones; the steep beginning may lie below the axes."""
    drawn = _draw_by_epoch(axes, lines)
    shown = [value for values in lines for value in _finite(values, 0.1 * (len(values) > _FEW))]
    if shown and max(map(len, lines)) > _FEW:
        axes.set_ylim(bottom=min(shown))
    ends = zip(drawn, lines, strict=True)
    label_ends({axes: {line: f"{values[max(values)]:.1f}" for line, values in ends if values}})


def _finite(values: Mapping[int, float], less: float = 0) -> list[float]:
    """The values that are numbers, less a share of the epochs at the beginning."""
    first = less * max(values, default=0)
    return [value for epoch, value in values.items() if epoch > first and math.isfinite(value)]


def _pckh(names: Sequence[str], tested: Sequence[Scored | None]) -> Figure:
    panels = _parts(names, [*PARTS, "Mean"], "threshold (head sizes)", "PCKh (%)")
    panels[0].set(xlim=(0, THRESHOLDS[-1]), xticks=THRESHOLDS[::10])
    curves = [
        pckh_by_part(test.predictions, test.gt, THRESHOLDS) if test and test.gt else None
        for test in tested
    ]
    ends: dict[Axes, dict[Line2D, str]] = {}
    for axes in panels:
        part = axes.get_title()
        ends[axes] = {}
        for index, test in enumerate(tested):
            if test is None:
                continue
            style = line_style(index)
            if curves[index] is not None:
                points = zip(THRESHOLDS, curves[index][part], strict=True)
            else:  # single points of the curve
                known = {0.1: "Mean@0.1", 0.5: "Mean"} if part == "Mean" else {0.5: part}
                points = [(x, test.scores.get(key, math.nan)) for x, key in known.items()]
                style |= {"linestyle": "", "marker": "D", "markersize": 4, "clip_on": False}
            (line,) = axes.plot(*zip(*points, strict=True), **style)
            ends[axes][line] = f"{line.get_ydata()[-1]:.1f}"
    panels[0].set_ylim(0, min(100, panels[0].get_ylim()[1]))
    label_ends(ends)
    return panels[0].figure


def _errors(names: Sequence[str], tested: Sequence[Scored | None]) -> Figure:
    errors = [
        normalised_errors(test.predictions, test.gt) if test and test.gt else None
        for test in tested
    ]
    fewest = min(len(found) for found in errors if found is not None)
    bins = np.linspace(0, _FARTHEST, 21 if fewest >= 500 else 11)
    joints = {part: [JOINTS.index(name) for name in names] for part, names in PARTS.items()}
    joints["All joints"] = [j for j in range(len(JOINTS)) if j not in NOT_IN_MEAN]
    panels = _parts(
        names,
        list(joints),
        "error (head sizes; dotted: the threshold of PCKh@0.5)",
        f"joints (%) in each {bins[1]:g} head sizes",
    )
    panels[0].set_xlim(0, _FARTHEST)
    ends: dict[Axes, dict[Line2D, str]] = {}
    for axes in panels:
        axes.axvline(0.5, color=GRAY, linewidth=0.8, linestyle=":")
        ends[axes] = {}
        for index, found in enumerate(errors):
            values = [] if found is None else found[:, joints[axes.get_title()]]
            values = np.asarray(values)[~np.isnan(values)]
            if not len(values):
                continue
            shares = 100 * np.histogram(values, bins)[0] / len(values)
            (line,) = axes.plot(
                bins, [*shares, shares[-1]], drawstyle="steps-post", **line_style(index)
            )
            ends[axes][line] = f"{100 * (values > _FARTHEST).mean():.0f}"
    panels[0].set_ylim(bottom=0)
    list_beside(f"% > {_FARTHEST:g}", ends)
    return panels[0].figure


def _parts(names: Sequence[str], titles: Sequence[str], xlabel: str, ylabel: str) -> list[Axes]:
    """A panel for each part of the body and one for all, with the same limits."""
    panels = new_panels(2, 4, height=4.1, share=True, names=names)
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=FONT + 1)
    panels[0].figure.supxlabel(xlabel, fontsize=FONT + 0.5)
    panels[0].figure.supylabel(ylabel, fontsize=FONT + 0.5)
    return panels
