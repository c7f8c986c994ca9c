"""The pictures of a report, as PNG files in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..report.plots import figure_png, make_plots

# Metric in the learning curve and its title; and the same of the groups.
CURVE_PLOTS = {"SBD": "SBD", "abs_DiC": "|DiC|", "AP": "mask AP (percent)", "count_accuracy": "count accuracy"}
IMAGE_PLOTS = {"SBD": "SBD", "abs_DiC": "|DiC|"}
OBJECT_PLOTS = {"recall50": "objects found (IoU 0.5)", "mean_IoU": "mean best IoU"}


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Metrics over minutes of training, a line per model.

    Args:
        curves: by name of the model, the ``curve`` of its training.
    """
    figure, plots = make_plots(list(CURVE_PLOTS.values()), 2, xlabel="minutes of training")
    for axes, metric in zip(plots, CURVE_PLOTS, strict=True):
        for name, points in curves.items():
            values = [point["metrics"][metric] for point in points]
            axes.plot([point["seconds"] / 60 for point in points], values, marker="o", markersize=3, label=name)
        axes.set_xlim(left=0)
        axes.legend(fontsize="small")
    return figure_png(figure)


def group_bars(groups: Sequence[Mapping[str, Any]], titles: Mapping[str, str], xlabel: str) -> bytes:
    """A bar per group and model; the groups' sizes stand below their labels.

    Args:
        groups: one list of :func:`.groups.quality_by_group`.
        titles: figure of the groups to title of its plot.
        xlabel: what the groups differ in.
    """
    figure, plots = make_plots(list(titles.values()), len(titles), xlabel=xlabel)
    names = list(groups[0]["models"])
    width = 0.8 / len(names)
    places = np.arange(len(groups))
    for axes, metric in zip(plots, titles, strict=True):
        for index, name in enumerate(names):
            heights = [group["models"][name][metric] for group in groups]
            axes.bar(places + (index - (len(names) - 1) / 2) * width, heights, width, label=name)
        axes.set_xticks(places, [f"{group['label']}\n(n = {group['size']})" for group in groups])
        axes.legend(fontsize="small")
    return figure_png(figure)
