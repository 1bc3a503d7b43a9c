"""Plots of runs: history, accuracy and errors; data in, figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.analysis.runs.read import Evaluation, Run
from lib.metrics import Metric
from lib.utils.plot import FONT, GRAY, add_names, line_style, new_panels

_LABELS = {"loss": "training loss", "lr": "learning rate"}
_MAX_LEGEND = 10  # lines whose values a panel lists


def draw_runs(runs: Sequence[Run]) -> dict[str, Figure]:
    """Draw what can be drawn: `training`, `accuracy` and `errors`; a run has the same style in all.

    The last two need predictions and annotation.
    """
    metric = next((run.metric for run in runs if run.metric), None)
    figures = {}
    if any(run.history for run in runs):
        figures["training"] = _draw_training(runs, metric)
    evaluations = {index: run.evaluation for index, run in enumerate(runs) if run.evaluation}
    if metric and evaluations:
        figures["accuracy"] = _draw_accuracy(evaluations, metric)
        figures["errors"] = _draw_errors(evaluations, metric)
    for figure in figures.values():
        add_names(figure, [run.name for run in runs])
    return figures


def _draw_training(runs: Sequence[Run], metric: Metric | None) -> Figure:
    """Draw the scores that the metric plots, if it is known, then loss and learning rate."""
    labels = {**(metric.plotted if metric else {}), **_LABELS}
    shown = [name for name in labels if any(name in run.history for run in runs)]
    figure, panels = new_panels(len(shown), 2, height=2.4, xlabel="epoch")
    for axes, name in zip(panels, shown, strict=True):
        for index, run in enumerate(runs):
            if name in run.history:
                epochs, values = zip(*sorted(run.history[name].items()), strict=True)
                style = line_style(index) | {"marker": ".", "markersize": 4}
                axes.plot(epochs, values, label=f"{values[-1]:.4g}", **style)
        low, high = axes.dataLim.intervaly
        if name in _LABELS and 0 < 3 * low < high:
            axes.set_yscale("log")
        axes.set_ylabel(labels[name])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _add_values(axes)
    return figure


def _draw_accuracy(evaluations: Mapping[int, Evaluation], metric: Metric) -> Figure:
    """Draw the percent of joints with an error within each threshold, by the run's index."""
    thresholds = np.linspace(0, metric.threshold, 51)
    curves = {
        index: metric.curves(evaluation.predictions, evaluation.dataset, thresholds)
        for index, evaluation in evaluations.items()
    }
    parts = list(next(iter(curves.values())))
    label = f"threshold ({metric.error_unit})"
    figure, panels = _part_panels(parts, metric.threshold, label, "joints within the threshold (%)")
    for axes, part in zip(panels, parts, strict=True):
        for index, by_part in curves.items():
            last = f"{by_part[part][-1]:.1f}"
            axes.plot(thresholds, by_part[part], label=last, **line_style(index))
        _add_values(axes)
    return figure


def _draw_errors(evaluations: Mapping[int, Evaluation], metric: Metric) -> Figure:
    """Draw a histogram of errors for each part; its legend has the percent beyond it."""
    bins = np.linspace(0, metric.max_error, 21)
    errors = {i: metric.errors(one.predictions, one.dataset) for i, one in evaluations.items()}
    parts = metric.parts(next(iter(evaluations.values())).dataset.skeleton)
    xlabel = f"error ({metric.error_unit}; dotted: the threshold of {metric.name})"
    ylabel = f"joints (%) per {bins[1]:g} {metric.error_unit}"
    figure, panels = _part_panels(list(parts), metric.max_error, xlabel, ylabel)
    for axes, joints in zip(panels, parts.values(), strict=True):
        axes.axvline(metric.threshold, color=GRAY, linewidth=0.8, linestyle=":")
        for index, by_joint in errors.items():
            values = by_joint[:, joints][~np.isnan(by_joint[:, joints])]
            if len(values):
                shares = 100 * np.histogram(values, bins)[0] / len(values)
                label = f"{100 * (values > metric.max_error).mean():.0f} % beyond"
                axes.stairs(shares, bins, label=label, **line_style(index))
        _add_values(axes)
    return figure


def _part_panels(
    parts: Sequence[str], limit: float, xlabel: str, ylabel: str
) -> tuple[Figure, list[Axes]]:
    """A panel for each group of joints, with the same axes: x from 0 to `limit`."""
    figure, panels = new_panels(len(parts), min(4, len(parts)), height=2.0, share=True)
    for axes, part in zip(panels, parts, strict=True):
        axes.set_title(part, fontsize=FONT + 1)
    panels[0].set(xlim=(0, limit), ylim=(0, None))
    figure.supxlabel(xlabel, fontsize=FONT + 0.5)
    figure.supylabel(ylabel, fontsize=FONT + 0.5)
    return figure, panels


def _add_values(axes: Axes) -> None:
    """List the labels of the lines, if they are not too many."""
    handles, labels = axes.get_legend_handles_labels()
    if 0 < len(handles) <= _MAX_LEGEND:
        axes.legend(handles, labels, frameon=False, fontsize=FONT - 0.5)
