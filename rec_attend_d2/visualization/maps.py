"""A picture of the preprocessor's maps: foreground or classes, and angles as hues.

Shapes: `B` images, `H, W` network input, `K` foreground channels, `A` angle bins.
"""

import colorsys

import numpy as np

from ..modeling.steps import ExtraMaps
from .canvas import gray_picture, grid, magnification, magnify
from .colors import instance_color
from .steps import to_array

_SMALLEST_CELL = 160


def class_picture(foreground: np.ndarray) -> np.ndarray:
    """Foreground [1, H, W] in gray, or the most probable class of [K, H, W] in colour, the background black."""
    if len(foreground) == 1:
        return gray_picture(foreground[0])
    colors = np.array([(0, 0, 0), *map(instance_color, range(len(foreground) - 1))], dtype=np.uint8)
    return colors[foreground.argmax(0)]


def angle_picture(angle: np.ndarray, foreground: np.ndarray | None) -> np.ndarray:
    """The most probable angle bin of [A, H, W] as hue, dark where there is no foreground [K, H, W]."""
    hues = [colorsys.hsv_to_rgb(index / len(angle), 0.8, 1.0) for index in range(len(angle))]
    picture = np.array(hues)[angle.argmax(0)]
    if foreground is not None:
        share = foreground[0] if len(foreground) == 1 else 1 - foreground[0]
        picture = picture * share[..., None]
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def draw_maps(image: np.ndarray, maps: ExtraMaps, index: int) -> np.ndarray:
    """The image and its maps side by side.

    Args:
        image: uint8 RGB [H, W, 3].
        maps: of a batch; at least one of foreground [B, K, H, W] and angle [B, A, H, W].
        index: which image of the batch.
    """
    cells = [image]
    foreground = None if maps.foreground is None else to_array(maps.foreground[index])
    if foreground is not None:
        cells.append(class_picture(foreground))
    if maps.angle is not None:
        cells.append(angle_picture(to_array(maps.angle[index]), foreground))
    factor = magnification(image, _SMALLEST_CELL)
    return grid([[magnify(cell, factor) for cell in cells]])
