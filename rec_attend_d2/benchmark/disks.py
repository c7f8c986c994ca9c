"""Synthetic objects: disks on a grid, which stand apart.

Shapes: `N` objects, `H, W` network input.
"""

import math

import numpy as np
from numpy.typing import NDArray

# Of an object, relative to the cell of the grid on which objects are placed.
RADIUS = 0.4


def grid_shape(size: tuple[int, int], objects: int) -> tuple[int, int]:
    """Rows and columns of the grid on which so many objects are placed.

    Raises:
        ValueError: the image is too small for so many objects.
    """
    columns = math.ceil(math.sqrt(objects * size[1] / size[0]))
    rows = math.ceil(objects / columns)
    if min(size[0] // rows, size[1] // columns) < 3:
        raise ValueError(f"An image of {size[0]} x {size[1]} pixels is too small for {objects} objects; ask for fewer.")
    return rows, columns


def grid_of_disks(size: tuple[int, int], objects: int) -> NDArray[np.bool_]:
    """Masks bool [N, H, W] of disks side by side; their size falls as their number grows, as that of leaves does.

    Raises:
        ValueError: the image is too small for so many objects.
    """
    rows, columns = grid_shape(size, objects)
    # Position in units of cells, of which each object has one.
    y = (np.arange(size[0]) + 0.5)[:, None] * rows / size[0]
    x = (np.arange(size[1]) + 0.5)[None, :] * columns / size[1]
    inside = (y % 1 - 0.5) ** 2 + (x % 1 - 0.5) ** 2 < RADIUS**2
    number = y.astype(int) * columns + x.astype(int)
    return inside & (number == np.arange(objects)[:, None, None])
