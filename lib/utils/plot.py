"""Plots as pictures, drawn without a screen."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def new_axes(**settings: object) -> Axes:
    """Empty axes on a picture of their own; `settings` as of `Axes.set`."""
    figure = Figure(figsize=(6.4, 3.8), dpi=150, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(**settings)
    axes.grid(alpha=0.3)
    return axes


def picture(axes: Axes) -> np.ndarray:
    """What was drawn, uint8 RGB [h, w, 3]."""
    canvas = axes.figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def new_axes_row(count: int, size: tuple[float, float]) -> list[Axes]:
    """Empty axes side by side on one picture of `size` (w, h) in inches, which each can give."""
    figure = Figure(figsize=size, dpi=120, layout="tight")
    FigureCanvasAgg(figure)
    return list(figure.subplots(1, count))
