"""What is measured of objects: size, shape, brightness. Shape as scikit-image's ``regionprops`` defines it.

scikit-image itself takes milliseconds for an object, which is longer than finding it.

Shapes: `N` objects, `H, W` picture in pixels, `C` channels.
"""

import math
from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances
from numpy.typing import NDArray

from ..structures import MaskCrops, as_crops
from .pixel_size import PixelSize

SHAPE_COLUMNS = (
    *("area", "centroid_y", "centroid_x", "box_top", "box_left", "box_bottom", "box_right"),
    *("major_axis_length", "minor_axis_length", "eccentricity"),
)
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
    sums = np.array([_sums(crop) for crop in masks.crops], dtype=np.float64).reshape(-1, 6)
    area = sums[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        y, x, yy, xx, xy = (sums[:, 1:] / area[:, None]).T
        var_y, var_x, covariance = yy - y * y, xx - x * x, xy - x * y
        # Eigenvalues of the pixels' covariance.
        middle, half = (var_y + var_x) / 2, np.hypot((var_y - var_x) / 2, covariance)
        major, minor = np.maximum(middle + half, 0), np.maximum(middle - half, 0)
        eccentricity = np.where(major > 0, np.sqrt(1 - minor / np.where(major > 0, major, 1)), 0)
    corners = masks.corners.T
    floats = (y + corners[0], x + corners[1]), (4 * np.sqrt(major), 4 * np.sqrt(minor), eccentricity)
    boxes = masks.boxes()[:, [1, 0, 3, 2]].tolist()
    rows: list[list[Value]] = []
    for number, box in enumerate(boxes):
        if area[number] == 0:
            rows.append([0, *[""] * (len(SHAPE_COLUMNS) - 1)])
            continue
        center, axes = ([round(float(values[number]), _DIGITS) for values in group] for group in floats)
        rows.append([int(area[number]), *center, *box, *axes])
    return rows


def _sums(crop: NDArray[np.bool_]) -> tuple[float, ...]:
    """Number of pixels of [h, w], and the sums of y, x, y * y, x * x and x * y over them."""
    ys, xs = np.arange(crop.shape[0], dtype=np.float64), np.arange(crop.shape[1], dtype=np.float64)
    pixels = crop.astype(np.float64)
    by_row, by_column = pixels.sum(axis=1), pixels.sum(axis=0)
    return (
        *(float(by_row.sum()), float(by_row @ ys), float(by_column @ xs)),
        *(float(by_row @ (ys * ys)), float(by_column @ (xs * xs)), float(ys @ pixels @ xs)),
    )


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
