"""What is measured of objects: size, shape, brightness. Shape is scikit-image's, crop by crop.

Shapes: `N` objects, `H, W` picture in pixels, `C` channels.
"""

import math
from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from ..structures import MaskCrops, as_crops
from .pixel_size import PixelSize

SHAPE_COLUMNS = (
    *("area", "centroid_y", "centroid_x", "box_top", "box_left", "box_bottom", "box_right"),
    *("major_axis_length", "minor_axis_length", "eccentricity"),
)
# The same of scikit-image.
_PROPERTIES = ("area", "centroid", "bbox", "axis_major_length", "axis_minor_length", "eccentricity")
MICROMETRE_COLUMNS = (*("area_um2", "centroid_y_um", "centroid_x_um", "major_axis_length_um", "minor_axis_length_um"),)
_DIGITS = 4

Value = float | int | str
"""Of a table; "" where there is none."""


def measure(
    instances: Instances, channels: NDArray, class_names: Sequence[str], pixel_size: PixelSize | None = None
) -> tuple[list[str], list[list[Value]]]:
    """Measurements of all objects of a picture.

    Args:
        instances: with ``pred_masks`` [N, H, W], ``scores`` and ``pred_classes``.
        channels: [H, W, C], the pixels that are measured, of any type; those that are no number do not count.
        class_names: of class 0, 1, ...
        pixel_size: None = in pixels only.

    Returns:
        Names of the columns, and N rows: ``object`` (k + 1 of object k, its number in the label image), SHAPE_COLUMNS
        in pixels, ``score``, ``class``, ``mean_intensity_c`` and ``max_intensity_c`` of channel c (from 1 on), and with
        a pixel size MICROMETRE_COLUMNS.
    """
    masks = as_crops(instances.pred_masks)
    columns = ["object", *SHAPE_COLUMNS, "score", "class"]
    columns += [f"{kind}_intensity_{c + 1}" for c in range(channels.shape[2]) for kind in ("mean", "max")]
    columns += MICROMETRE_COLUMNS if pixel_size is not None else ()
    shapes = _shapes(masks)
    details = zip(shapes, instances.scores.tolist(), instances.pred_classes.tolist(), strict=True)
    rows = []
    for number, (shape, score, class_) in enumerate(details):
        row: list[Value] = [number + 1, *shape, round(score, _DIGITS), class_names[class_]]
        row += _intensities(channels[masks.window(number)], masks.crops[number])
        row += _micrometres(shape, pixel_size) if pixel_size is not None else []
        rows.append(row)
    return columns, rows


def _shapes(masks: MaskCrops) -> list[list[Value]]:
    """SHAPE_COLUMNS of each mask; of one without a pixel only the area, 0."""
    return [_shape(crop, corner) for crop, corner in zip(masks.crops, masks.corners.tolist(), strict=True)]


def _shape(crop: NDArray[np.bool_], corner: Sequence[int]) -> list[Value]:
    """SHAPE_COLUMNS of a crop [h, w], whose first pixel is that of the picture at (y, x)."""
    if not crop.any():
        return [0, *[""] * (len(SHAPE_COLUMNS) - 1)]
    table = regionprops_table(crop.astype(np.uint8), properties=_PROPERTIES)
    area, y, x, top, left, bottom, right, *axes = (column[0].item() for column in table.values())
    row, column = corner
    center = [round(y + row, _DIGITS), round(x + column, _DIGITS)]
    box = [top + row, left + column, bottom + row, right + column]
    return [int(area), *center, *box, *(round(value, _DIGITS) for value in axes)]


def _intensities(window: NDArray, crop: NDArray[np.bool_]) -> list[Value]:
    """Mean and maximum of each channel of [h, w, C] where the crop [h, w] is."""
    pixels = np.asarray(window)[crop]
    row: list[Value] = []
    for values in pixels.T:
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        row += [_short(values.mean(dtype=np.float64)), _short(values.max())] if len(values) else ["", ""]
    return row


def _micrometres(shape: Sequence[Value], size: PixelSize) -> list[Value]:
    """MICROMETRE_COLUMNS of SHAPE_COLUMNS in pixels."""
    area, y, x, *_, major, minor, _ = shape
    if not area:
        return [0, *[""] * (len(MICROMETRE_COLUMNS) - 1)]
    lengths = (float(y) * size.y, float(x) * size.x, float(major) * size.side, float(minor) * size.side)
    return [_short(float(area) * size.y * size.x), *map(_short, lengths)]


def _short(value: float | np.generic) -> Value:
    """With six digits at least, without the noise behind them."""
    if isinstance(value, np.integer):
        return int(value)
    number = float(value)
    if number == 0 or not math.isfinite(number):
        return number
    return round(number, max(_DIGITS, 6 - math.ceil(math.log10(abs(number)))))
