"""The pictures of a report, as PNG files in memory."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

DPI = 110
# Metric in the learning curve and its title; and the same of the groups.
CURVE_PLOTS = {"SBD": "SBD", "abs_DiC": "|DiC|", "AP": "mask AP (percent)", "count_accuracy": "count accuracy"}
IMAGE_PLOTS = {"SBD": "SBD", "abs_DiC": "|DiC|"}
OBJECT_PLOTS = {"recall50": "objects found (IoU 0.5)", "mean_IoU": "mean best IoU"}


def picture_png(picture: np.ndarray) -> bytes:
    """PNG file of an RGB picture [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _plots(titles: Sequence[str], columns: int, **labels: str) -> tuple[Figure, list[Axes]]:
    """A figure with a plot for each title."""
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.3 * rows), layout="constrained")
    plots = [figure.add_subplot(rows, columns, i, title=title, **labels) for i, title in enumerate(titles, start=1)]
    for axes in plots:
        axes.grid(alpha=0.3)
    return figure, plots


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the library's version, so that equal results give equal files.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Metrics over minutes of training, a line per model.

    Args:
        curves: by name of the model, the ``curve`` of its training.
    """
    figure, plots = _plots(list(CURVE_PLOTS.values()), 2, xlabel="minutes of training")
    for axes, metric in zip(plots, CURVE_PLOTS, strict=True):
        for name, points in curves.items():
            values = [point["metrics"][metric] for point in points]
            axes.plot([point["seconds"] / 60 for point in points], values, marker="o", markersize=3, label=name)
        axes.set_xlim(left=0)
        axes.legend(fontsize="small")
    return _png(figure)


def group_bars(groups: Sequence[Mapping[str, Any]], titles: Mapping[str, str], xlabel: str) -> bytes:
    """A bar per group and model; the groups' sizes stand below their labels.

    Args:
        groups: one list of :func:`.groups.quality_by_group`.
        titles: figure of the groups to title of its plot.
        xlabel: what the groups differ in.
    """
    figure, plots = _plots(list(titles.values()), len(titles), xlabel=xlabel)
    names = list(groups[0]["models"])
    width = 0.8 / len(names)
    places = np.arange(len(groups))
    for axes, metric in zip(plots, titles, strict=True):
        for index, name in enumerate(names):
            heights = [group["models"][name][metric] for group in groups]
            axes.bar(places + (index - (len(names) - 1) / 2) * width, heights, width, label=name)
        axes.set_xticks(places, [f"{group['label']}\n(n = {group['size']})" for group in groups])
        axes.legend(fontsize="small")
    return _png(figure)
