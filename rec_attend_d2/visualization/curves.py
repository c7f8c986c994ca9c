"""Curves of a training: losses and results over time, from the metrics.json that Detectron2 writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

# Curves drawn where a training has them, one plot each.
CURVES = (
    "total_loss",
    "loss_mask",
    "loss_box",
    "loss_score",
    "box_counting/best_box_IoU",
    "counting/SBD",
    "counting/abs_DiC",
)


def _on_validation(name: str) -> str:
    """What the loss ``name`` is called where it is that of validation images."""
    return "val_loss" if name == "total_loss" else f"val_{name}"


def read_entries(path: Path) -> list[tuple[float, dict]]:
    """Hours of training and content of every line of a metrics.json.

    The time is that of the iterations alone, as Detectron2 logs it, without evaluations.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no iteration.
    """
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' does not exist; every training writes one to its OUTPUT_DIR.")
    entries: list[tuple[float, dict]] = []
    hours, last_iteration = 0.0, 0
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # an interruption cut it off
            continue
        hours += entry.get("time", 0.0) * (entry["iteration"] - last_iteration) / 3600
        last_iteration = entry["iteration"]
        entries.append((hours, entry))
    if last_iteration == 0:
        raise ValueError(f"'{path}' holds no iterations.")
    return entries


def read_curves(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Hours of training (see :func:`read_entries`) and value of every curve, and of "val_..." losses, in a file."""
    names = [*CURVES, *map(_on_validation, CURVES)]
    curves: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    for hours, entry in read_entries(path):
        for name, (times, values) in curves.items():
            if name in entry:
                times.append(hours)
                values.append(entry[name])
    return {name: curve for name, curve in curves.items() if curve[0]}


def draw_curves(trainings: Mapping[str, dict[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """One plot per curve over minutes of training, with a line per training and a dashed one for validation images.

    Args:
        trainings: label to the curves that :func:`read_curves` returns.
    """
    names = [name for name in CURVES if any(name in curves for curves in trainings.values())]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, number, title=name, xlabel="minutes of training")
        for label, curves in trainings.items():
            color = f"C{list(trainings).index(label)}"
            for key, style, kind in ((name, "-", ""), (_on_validation(name), "--", ", validation")):
                if key in curves:
                    hours, values = curves[key]
                    axes.plot([60 * hour for hour in hours], values, style, color=color, label=label + kind)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
