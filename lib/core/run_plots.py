"""Plots of runs: the way of their training, PCKh against threshold, errors; data in, figure out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.core.evaluate import JOINTS, NOT_IN_MEAN, PARTS, normalised_errors, pckh_by_part
from lib.core.runs import History, Run, Tested
from lib.utils.plot import (
    FONT,
    GRAY,
    label_ends,
    legend_above,
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
    figures = {}
    if any(histories):
        figures["training"] = _training(histories)
    if any(tested):
        figures["pckh"] = _pckh(tested)
    if any(test and test.gt for test in tested):
        figures["errors"] = _errors(tested)
    for figure in figures.values():
        legend_above(figure, labels(runs))
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
    axes = new_axes(xlabel="epochs of training", ylabel=_Y_LABELS["Mean"])
    _draw_by_epoch(
        axes, [dict(enumerate(scores, 1)) for scores in curves.values()], are_scores=True
    )
    legend_above(axes.figure, list(curves))
    return axes.figure


def _training(histories: Sequence[History]) -> Figure:
    shown = [key for key in _Y_LABELS if any(key in history for history in histories)]
    rows = math.ceil(len(shown) / 2)
    panels = new_panels(rows, 2, height=0.4 + 2.4 * rows, xlabel="epochs of training")
    for axes, key in zip(panels, shown, strict=False):
        axes.set_ylabel(_Y_LABELS[key])
        _draw_by_epoch(
            axes, [history.get(key, {}) for history in histories], key.startswith("Mean")
        )
    for axes in panels[len(shown) :]:
        axes.remove()
    return panels[0].figure


def _draw_by_epoch(axes: Axes, lines: Sequence[Mapping[int, float]], are_scores: bool) -> None:
    """Draw values by epoch, a line each.

    `are_scores` asks for the last value at its line's end, and for limits that leave out how
    scores rise at the very first. Others are on a scale of powers where they span much.
    """
    ends = {}
    for index, values in enumerate(lines):
        epochs = sorted(values)
        heights = [values[epoch] for epoch in epochs]
        if not epochs:
            continue
        (line,) = axes.plot(
            epochs, np.where(np.isfinite(heights), heights, np.nan), **line_style(index),
            marker="o" if len(epochs) <= _FEW else None, markersize=3,
        )  # fmt: skip
        ends[line] = f"{heights[-1]:.1f}"
    axes.xaxis.get_major_locator().set_params(integer=True)
    last = max((epoch for values in lines for epoch in values), default=0)
    first = last // 10 if are_scores and last > _FEW else 0
    drawn = [
        value
        for values in lines
        for epoch, value in values.items()
        if math.isfinite(value) and epoch > first
    ]
    if first and drawn:
        axes.set_ylim(bottom=min(drawn))
    elif drawn and 0 < 3 * min(drawn) < max(drawn) and not are_scores:
        axes.set_yscale("log")
    if are_scores:
        label_ends(axes, ends)


def _pckh(tested: Sequence[Tested | None]) -> Figure:
    panels = _parts([*PARTS, "Mean"], "threshold (head sizes)", "PCKh (%)")
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
    for axes, labels in ends.items():
        label_ends(axes, labels)
    return panels[0].figure


def _errors(tested: Sequence[Tested | None]) -> Figure:
    errors = [
        normalised_errors(test.predictions, test.gt) if test and test.gt else None
        for test in tested
    ]
    fewest = min(len(found) for found in errors if found is not None)
    bins = np.linspace(0, _FARTHEST, 21 if fewest >= 500 else 11)
    joints = {part: [JOINTS.index(name) for name in names] for part, names in PARTS.items()}
    joints["All joints"] = [j for j in range(len(JOINTS)) if j not in NOT_IN_MEAN]
    panels = _parts(
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
    for axes, labels in ends.items():
        list_beside(axes, f"% > {_FARTHEST:g}", labels)
    return panels[0].figure


def _parts(titles: Sequence[str], xlabel: str, ylabel: str) -> list[Axes]:
    """A panel for each part of the body and one for all, with the same limits."""
    panels = new_panels(2, 4, height=4.4, share=True)
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=FONT + 1)
    panels[0].figure.supxlabel(xlabel, fontsize=FONT + 0.5)
    panels[0].figure.supylabel(ylabel, fontsize=FONT + 0.5)
    return panels
