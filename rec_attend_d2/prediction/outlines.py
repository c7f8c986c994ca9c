"""Outlines of masks along the edges of their pixels, so that a polygon has the area of its mask exactly.

Points are (x, y), where pixel (0, 0) reaches from 0 to 1.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.int64]
"""Corners [n, 2] of a closed line, the first of them not repeated."""
Part = list[Ring]
"""Outline of pixels that share sides, and those of the holes in it."""


def outlines(mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0)) -> list[Part]:
    """The parts of a mask, from the largest on.

    Args:
        mask: [h, w].
        corner: (y, x) of its first pixel in the image.

    Returns:
        Of each part that is connected by sides of pixels (not by corners alone) its outline, then its holes. No line
        crosses or touches itself; lines of two parts, or of holes, may meet in corners. An empty list of an empty mask.
    """
    padded = np.pad(mask, 1)
    corners, along_row, along_column = _corners(padded)
    _, components = cv2.connectedComponents(padded.view(np.uint8), connectivity=4)
    parts: dict[int, Part] = {}
    holes: list[tuple[int, Ring]] = []
    ys, xs = corners[:, 0].tolist(), corners[:, 1].tolist()
    seen = [False] * len(xs)
    for start in range(len(xs)):  # from the top, so that the pixel below and right of it is inside the line
        if seen[start]:
            continue
        ring, at = [], start
        while not seen[at]:
            other = along_row[at]
            seen[at] = seen[other] = True
            ring += [at, other]
            at = along_column[other]
        line = corners[ring][:, ::-1] + (corner[1] - 1, corner[0] - 1)
        y, x = ys[start], xs[start]
        if padded[y, x]:
            parts[int(components[y, x])] = [line]
        else:
            holes.append((int(components[y - 1, x]), line))
    for component, line in holes:
        parts[component].append(line)
    return sorted(parts.values(), key=lambda part: -ring_area(part[0]))


def _corners(padded: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """Corners (y, x) of the lines around pixels, sorted, and for each the corner it is joined with in row and column.

    Where two pixels meet in a corner alone there are two corners: the left one of the row comes first.
    """
    top_left, top_right, bottom_left, bottom_right = (
        padded[:-1, :-1],
        padded[:-1, 1:],
        padded[1:, :-1],
        padded[1:, 1:],
    )
    falls = top_left & bottom_right & ~top_right & ~bottom_left
    rises = top_right & bottom_left & ~top_left & ~bottom_right
    single = top_left ^ top_right ^ bottom_left ^ bottom_right
    numbers = single.astype(np.int64) + 2 * (falls | rises)
    y, x = np.nonzero(numbers)
    repeats = numbers[y, x]
    rise = np.repeat(rises[y, x], repeats)
    second = np.concatenate([[0], np.cumsum(repeats)])[:-1][repeats == 2] + 1
    y, x = np.repeat(y, repeats), np.repeat(x, repeats)
    copy = np.zeros(len(y), dtype=np.int64)
    copy[second] = 1
    # Of pixels that fall from left to right the left corner is the upper one, of those that rise it is the lower one.
    order = np.lexsort((np.where(rise, 1 - copy, copy), y, x))
    along_column = np.empty(len(y), dtype=np.int64)
    along_column[order[::2]], along_column[order[1::2]] = order[1::2], order[::2]
    along_row = np.arange(len(y)) ^ 1
    # Corners of `numbers` lie between the padded pixels: one further on.
    return np.stack([y, x], axis=1) + 1, along_row.tolist(), along_column.tolist()


def ring_area(ring: Ring) -> float:
    """What a line encloses, in pixels."""
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
