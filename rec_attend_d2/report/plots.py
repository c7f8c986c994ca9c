"""What all plots and pictures of a report have in common; PNG files in memory."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

DPI = 110


def picture_png(picture: np.ndarray) -> bytes:
    """PNG file of an RGB picture [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def make_plots(titles: Sequence[str], columns: int, **labels: str) -> tuple[Figure, list[Axes]]:
    """A figure with a plot for each title; ``labels`` are those of their axes."""
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.3 * rows), layout="constrained")
    plots = [figure.add_subplot(rows, columns, i, title=title, **labels) for i, title in enumerate(titles, start=1)]
    for axes in plots:
        axes.grid(alpha=0.3)
    return figure, plots


def figure_png(figure: Figure) -> bytes:
    """PNG file of a figure, the same one for the same figure."""
    buffer = io.BytesIO()
    # Without the library's version, so that equal results give equal files.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
