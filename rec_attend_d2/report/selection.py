"""Which pictures and groups are looked at: spread evenly, best and worst, and groups of rising values."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IMAGES_PER_RANK = 2
# Largest number of groups.
GROUPS = 4


def evenly_spaced(records: Sequence[dict], count: int) -> list[dict]:
    """At most so many of the images, spread evenly over the data set."""
    if len(records) <= count:
        return list(records)
    return [records[int(position)] for position in np.linspace(0, len(records) - 1, count)]


def ranked(quality: Sequence[float] | NDArray[np.float64]) -> dict[str, list[int]]:
    """Positions of the images with the largest, the middle and the smallest ``quality``.

    Returns:
        "best", "median" and "worst" to positions; no image is there twice.
    """
    order = np.argsort(-np.asarray(quality, dtype=np.float64), kind="stable").tolist()
    best, rest = order[:IMAGES_PER_RANK], order[IMAGES_PER_RANK:]
    worst, middle = rest[-IMAGES_PER_RANK:], rest[:-IMAGES_PER_RANK]
    start = max(0, len(middle) - IMAGES_PER_RANK) // 2
    return {"best": best, "median": middle[start : start + IMAGES_PER_RANK], "worst": worst}


def split_evenly(values: Sequence[float] | NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Positions of ``values`` in at most :data:`GROUPS` groups of rising values, as equal in size as ties allow.

    Equal values are always in one group; no group is empty.
    """
    array = np.asarray(values, dtype=np.float64)
    edges = np.unique(np.quantile(array, np.linspace(0, 1, GROUPS + 1)[1:-1])) if len(array) else array
    numbers = np.searchsorted(edges, array, side="left")
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def group_label(values: NDArray[np.float64], template: str) -> str:
    """The lowest and the highest of a group's values by a ``template``, once where they are the same."""
    return " to ".join(dict.fromkeys(map(template.format, (values.min(), values.max()))))
