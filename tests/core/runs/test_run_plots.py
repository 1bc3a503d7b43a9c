"""Plots show the numbers of their runs, each run in one style everywhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from lib.core.evaluate import JOINTS, PARTS, normalised_errors, pckh
from lib.core.runs.plots import draw_runs, scores_by_epoch
from lib.core.runs.read import Run, Scored
from lib.utils.plot import line_style

PEOPLE = 40


def make_run(name: str, pixels: float, *, trained: bool = True, with_gt: bool = True) -> Run:
    random = np.random.default_rng(0)
    gt = {
        "jnt_missing": np.zeros((16, PEOPLE)),
        "pos_gt_src": random.uniform(0, 500, (16, 2, PEOPLE)),
        "headboxes_src": np.stack((np.zeros((2, PEOPLE)), np.full((2, PEOPLE), 60.0))),
    }
    gt["jnt_missing"][JOINTS.index("lank")] = 1  # Ankle has no score
    noise = pixels * random.standard_normal((PEOPLE, 16, 2))
    predictions = np.transpose(gt["pos_gt_src"], (2, 0, 1)) + noise
    tested = Scored("valid", "a", pckh(predictions, gt))
    if with_gt:
        tested = Scored("valid", "a", tested.scores, predictions, gt)
    epochs = range(1, 61)
    history = {
        "loss": {epoch: 1 / epoch for epoch in epochs},
        "rate": dict.fromkeys(epochs, 0.1),
        "Mean": {epoch: float(min(epoch + pixels, 50)) for epoch in epochs},
    }
    return Run(Path(name), name, history if trained else {}, tested, ())


def panel(axes: list[Axes], title: str) -> Axes:
    return next(one for one in axes if title in (one.get_title(), one.get_ylabel()))


def test_curves_pass_through_the_scores() -> None:
    runs = [make_run("a", 5), make_run("b", 15)]
    axes = draw_runs(runs)["pckh"].axes
    for part in [*PARTS, "Mean"]:
        lines = panel(axes, part).lines
        assert len(lines) == 2
        for line, run in zip(lines, runs, strict=True):
            assert line.get_xdata()[-1] == 0.5
            assert line.get_ydata()[-1] == pytest.approx(run.tested.scores[part], nan_ok=True)
    mean = panel(axes, "Mean").lines[0]
    at_tenth = mean.get_ydata()[np.flatnonzero(mean.get_xdata() == 0.1)[0]]
    assert at_tenth == pytest.approx(runs[0].tested.scores["Mean@0.1"])
    ends = [text.get_text() for text in panel(axes, "Mean").texts]
    assert ends == sorted((f"{run.tested.scores['Mean']:.1f}" for run in runs), key=float)
    assert not panel(axes, "Ankle").texts


def test_scores_alone_lie_where_the_curve_would() -> None:
    whole, alone = make_run("a", 9), make_run("b", 9, with_gt=False)
    figures = draw_runs([whole, alone])
    for axes in figures["pckh"].axes:
        curve, points = axes.lines
        for x, y in points.get_xydata():
            at = curve.get_ydata()[np.flatnonzero(curve.get_xdata() == x)[0]]
            assert y == pytest.approx(at, nan_ok=True)
    assert all(len(axes.get_lines()) <= 2 for axes in figures["errors"].axes)  # one run, 0.5


def test_histograms_and_what_is_beyond_make_a_hundred_percent() -> None:
    run = make_run("a", 30)
    axes = draw_runs([run])["errors"].axes
    errors = normalised_errors(run.tested.predictions, run.tested.gt)
    for title, names in {"Head": ("head",), "Knee": ("lkne", "rkne")}.items():
        joints = [JOINTS.index(name) for name in names]
        (line,) = (one for one in panel(axes, title).lines if len(one.get_xdata()) > 2)
        within = line.get_ydata()[:-1].sum()
        beyond = 100 * (errors[:, joints] > 1).sum() / (~np.isnan(errors[:, joints])).sum()
        assert within + beyond == pytest.approx(100)
        assert panel(axes, title).texts[-1].get_text() == f"{beyond:.0f}"
        assert 0 < beyond < 100


def test_a_run_has_one_style_in_all_plots() -> None:
    runs = [make_run("a", 5), make_run("b", 9, trained=False), make_run("c", 15)]
    figures = draw_runs(runs)
    colors = [line_style(index)["color"] for index in range(3)]
    (loss,) = (one for one in figures["training"].axes if one.get_ylabel() == "training loss")
    drawn = [line.get_color() for line in loss.lines if len(line.get_xdata())]
    assert drawn == [colors[0], colors[2]]
    assert [line.get_color() for line in panel(figures["pckh"].axes, "Hip").lines] == colors
    for figure in figures.values():
        legend = figure.legends[0]
        assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
        assert [line.get_color() for line in legend.get_lines()] == colors


def test_training_shows_what_there_is() -> None:
    run = replace(make_run("a", 5), tested=None)
    axes = {one.get_ylabel(): one for one in draw_runs([run])["training"].axes}
    assert set(axes) == {"PCKh@0.5 (%)", "training loss", "learning rate"}
    assert axes["training loss"].get_yscale() == "log"
    assert axes["learning rate"].get_yscale() == "linear"
    assert axes["PCKh@0.5 (%)"].get_ylim()[0] == 12  # what the first tenth reached is below


def test_a_short_run_beside_a_long_one_is_seen() -> None:
    curves = {"long": range(10, 70), "short": range(1, 20)}
    assert scores_by_epoch(curves).axes[0].get_ylim()[0] <= 1


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw_runs([]) == {}
    assert draw_runs([Run(Path("a"), "a", {}, None, ())]) == {}
