"""The pictures of a report, as PNG files in memory."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

DPI = 110
# Metric in the learning curve and its title; and the same of the groups.
CURVE_PLOTS = {"SBD": "SBD", "abs_DiC": "|DiC|", "AP": "mask AP (percent)", "count_accuracy": "count accuracy"}
IMAGE_PLOTS = {"SBD": "SBD", "abs_DiC": "|DiC|"}
OBJECT_PLOTS = {"recall50": "objects found (IoU 0.5)", "mean_IoU": "mean best IoU"}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the library's version, so that equal results give equal files.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def picture_png(picture: np.ndarray) -> bytes:
    """PNG file of an RGB picture [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _figure(plots: int) -> Figure:
    return Figure(figsize=(4.5 * plots, 3.4), layout="constrained")


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Metrics over minutes of training, a line per model.

    Args:
        curves: by name of the model, the ``curve`` of its training.
    """
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    for number, (metric, title) in enumerate(CURVE_PLOTS.items(), start=1):
        axes = figure.add_subplot(2, 2, number, title=title, xlabel="minutes of training")
        for name, points in curves.items():
            values = [point["metrics"][metric] for point in points]
            axes.plot([point["seconds"] / 60 for point in points], values, marker="o", markersize=3, label=name)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return _png(figure)


def group_bars(groups: Sequence[Mapping[str, Any]], plots: Mapping[str, str], xlabel: str) -> bytes:
    """A bar per group and model; the groups' sizes stand below their labels.

    Args:
        groups: one list of :func:`.groups.quality_by_group`.
        plots: figure of the groups to title of its plot.
        xlabel: what the groups differ in.
    """
    figure = _figure(len(plots))
    names = list(groups[0]["models"])
    width = 0.8 / len(names)
    places = np.arange(len(groups))
    for number, (metric, title) in enumerate(plots.items(), start=1):
        axes = figure.add_subplot(1, len(plots), number, title=title, xlabel=xlabel)
        for index, name in enumerate(names):
            heights = [group["models"][name][metric] for group in groups]
            axes.bar(places + (index - (len(names) - 1) / 2) * width, heights, width, label=name)
        axes.set_xticks(places, [f"{group['label']}\n(n = {group['size']})" for group in groups])
        axes.grid(alpha=0.3, axis="y")
        axes.legend(fontsize="small")
    return _png(figure)


def count_scatter(images_of_models: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Predicted against true count, a plot per model; a dot's area is its number of images."""
    figure = _figure(len(images_of_models))
    every = [
        image[key] for images in images_of_models.values() for image in images for key in ("gt_count", "pred_count")
    ]
    limit = max(every, default=0) + 1
    for number, (name, images) in enumerate(images_of_models.items(), start=1):
        title, x, y = name, "true count", "predicted count"
        axes = figure.add_subplot(1, len(images_of_models), number, title=title, xlabel=x, ylabel=y)
        pairs = [(image["gt_count"], image["pred_count"]) for image in images]
        places, sizes = np.unique(np.array(pairs).reshape(-1, 2), axis=0, return_counts=True)
        axes.plot([0, limit], [0, limit], color="gray", linewidth=1)
        axes.scatter(places[:, 0], places[:, 1], s=25 * sizes, alpha=0.6)
        axes.set_xlim(-0.5, limit)
        axes.set_ylim(-0.5, limit)
        axes.set_aspect("equal")
        axes.grid(alpha=0.3)
    return _png(figure)
