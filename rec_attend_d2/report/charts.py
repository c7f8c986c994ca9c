"""Plots of a report about one model, as PNG files in memory."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..visualization.curves import read_entries
from .plots import figure_png, make_plots

# Title of a plot to its curves: name in metrics.json, label and style.
_LEARNING = {
    "outlines (SBD, 1 = perfect)": {"counting/SBD": ("evaluation", "o-")},
    "count error (objects per picture)": {"counting/abs_DiC": ("evaluation", "o-")},
    "loss": {"total_loss": ("training pictures", "-"), "val_loss": ("other pictures", "s--")},
}


def count_scatter(true: Sequence[int], predicted: Sequence[int]) -> bytes:
    """A point for each picture, true against predicted count, and the line on which both are equal."""
    figure, (axes,) = make_plots(
        ["a point for each picture"], 1, xlabel="outlined by people", ylabel="counted by the model"
    )
    most = max(*true, *predicted, 1)
    axes.plot([0, most], [0, most], "--", color="0.4", label="both are equal")
    axes.plot(true, predicted, "o", color="C0", alpha=0.5, markersize=5)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(fontsize="small")
    return figure_png(figure)


def training_curves(metrics_file: Path) -> tuple[bytes, list[str]] | None:
    """What a training's metrics.json says of outlines, counts and losses over minutes.

    Returns:
        A plot and the titles of its parts; None if it says nothing of them.

    Raises:
        FileNotFoundError, ValueError: as :func:`~rec_attend_d2.visualization.curves.read_entries`.
    """
    entries = read_entries(metrics_file)
    shown = {
        title: curves
        for title, curves in _LEARNING.items()
        if any(name in entry for name in curves for _, entry in entries)
    }
    if not shown:
        return None
    figure, plots = make_plots(list(shown), len(shown), xlabel="minutes of training")
    for axes, curves in zip(plots, shown.values(), strict=True):
        for name, (label, style) in curves.items():
            _draw_curve(axes, [(hours * 60, entry[name]) for hours, entry in entries if name in entry], label, style)
        axes.set_xlim(left=0)
        axes.legend(fontsize="small")
    return figure_png(figure), list(shown)


def _draw_curve(axes: Axes, points: Sequence[tuple[float, float]], label: str, style: str) -> None:
    if points:
        minutes, values = zip(*points, strict=True)
        axes.plot(minutes, values, style, markersize=3, label=label)
