"""Plots show the numbers of the runs; a run has the same style in all plots."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.analysis.runs.plots import draw_runs
from lib.analysis.runs.read import Run, read_run, read_runs
from lib.core import training_checkpoint
from lib.dataset import DATASETS, DatasetSpec, PoseDataset
from lib.dataset.mpii import read_mpii
from lib.dataset.predictions import Predictions
from lib.metrics import METRICS, Metric
from lib.metrics.pckh import PCKh
from lib.utils.checkpoint import save_checkpoint
from lib.utils.plot import line_style

MakeRun = Callable[..., Path]


class MeanDistance(Metric):
    """A metric in pixels; lower is better."""

    name = "distance"
    primary = "mean"
    higher_is_better = False
    plotted: Mapping[str, str] = {"mean": "distance (pixels)"}
    error_unit = "pixels"
    max_error = 8.0
    threshold = 4.0

    def evaluate(self, predictions: Predictions, dataset: PoseDataset) -> dict[str, float]:
        return {"mean": float(np.nanmean(self.errors(predictions, dataset)))}

    def errors(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        truth = np.stack([record.joints for record in dataset.records])
        return np.linalg.norm(predictions.joints - truth, axis=2)

    def contributions(self, predictions: Predictions, dataset: PoseDataset) -> np.ndarray:
        raise NotImplementedError


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if title in (axes.get_title(), axes.get_ylabel()))


def legend_texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_curves_end_at_the_scores(make_run: MakeRun) -> None:
    runs, _ = read_runs([make_run("a", pixels=1), make_run("b", pixels=4)])
    figure = draw_runs(runs)["accuracy"]
    for axes in figure.axes:
        assert len(axes.lines) == 2
        for line, value, run in zip(axes.lines, legend_texts(axes), runs, strict=True):
            score = PCKh().evaluate(run.evaluation.predictions, run.evaluation.dataset)
            assert line.get_xdata()[-1] == 0.5
            assert line.get_ydata()[-1] == pytest.approx(score[axes.get_title()], nan_ok=True)
            assert value == f"{score[axes.get_title()]:.1f}"


def test_the_histogram_and_the_share_beyond_it_sum_to_100_percent(make_run: MakeRun) -> None:
    run = read_run(make_run(pixels=5))
    errors = PCKh().errors(run.evaluation.predictions, run.evaluation.dataset)
    figure = draw_runs([run])["errors"]
    for part, joints in PCKh().parts(run.evaluation.dataset.skeleton).items():
        axes = panel(figure, part)
        (histogram,) = axes.patches
        annotated = errors[:, joints][~np.isnan(errors[:, joints])]
        beyond = 100 * (annotated > 1).mean()
        assert histogram.get_data().values.sum() + beyond == pytest.approx(100)
        assert legend_texts(axes) == [f"{beyond:.0f} % beyond"]


def test_a_run_has_the_same_style_in_all_plots(make_run: MakeRun) -> None:
    folders = [make_run("a"), make_run("b"), make_run("c")]
    (folders[1] / "history.json").unlink()
    runs, _ = read_runs(folders)
    figures = draw_runs(runs)
    colors = [line_style(index)["color"] for index in range(3)]
    loss = panel(figures["training"], "training loss")
    assert [line.get_color() for line in loss.lines if len(line.get_xdata())] == colors[::2]
    assert [line.get_color() for line in panel(figures["accuracy"], "Hip").lines] == colors
    for figure in figures.values():
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
        assert [line.get_color() for line in legend.get_lines()] == colors


def test_the_training_plot_shows_the_plotted_scores_of_the_metric(make_run: MakeRun) -> None:
    folder = make_run(epochs=6)
    labels = [axes.get_ylabel() for axes in draw_runs([read_run(folder)])["training"].axes]
    assert labels == [*PCKh.plotted.values(), "training loss", "learning rate"]
    config = json.loads((folder / "results.json").read_text())["config"]
    (folder / "results.json").unlink()
    figure = draw_runs([read_run(folder)])["training"]  # the metric is unknown
    assert [axes.get_ylabel() for axes in figure.axes] == ["training loss", "learning rate"]
    content = {"format": training_checkpoint.FORMAT, "provenance": {"config": config}}
    save_checkpoint(content, folder / "checkpoint.pth")
    untested = draw_runs([read_run(folder)])
    assert [axes.get_ylabel() for axes in untested["training"].axes] == labels
    assert list(untested) == ["training"]
    assert panel(figure, "training loss").get_yscale() == "log"
    assert panel(figure, "learning rate").get_yscale() == "linear"


def test_plots_take_all_names_and_limits_from_the_metric(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "distance", MeanDistance())
    monkeypatch.setitem(DATASETS, "toy", DatasetSpec(read_mpii, "mpii", "distance"))
    run = read_run(make_run(dataset_name="toy"))
    assert not run.notes
    figures = draw_runs([run])
    assert panel(figures["training"], "distance (pixels)").lines
    (accuracy,) = figures["accuracy"].axes
    assert accuracy.get_title() == "All joints"
    assert accuracy.get_xlim() == (0, 4)
    assert figures["errors"].axes[0].get_xlim() == (0, 8)
    texts = [text for figure in figures.values() for text in figure.texts]
    assert not any("PCKh" in text.get_text() or "head" in text.get_text() for text in texts)


def test_without_data_nothing_is_drawn() -> None:
    assert draw_runs([]) == {}
    assert draw_runs([Run(Path("a"), "a")]) == {}
