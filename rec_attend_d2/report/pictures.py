"""Draws what a model found beside what people outlined, with every error marked.

Marks differ in colour (which stay apart for the colour-blind), in how the line is drawn, and in a sign.

Shapes: `H, W` picture in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..structures import MaskCrops
from ..visualization import side_by_side
from ..visualization.canvas import GAP, grid, magnification, magnify, text_cell, write_at
from ..visualization.colors import BACKGROUND, Color
from .errors import PictureErrors

# Of one of the two pictures beside each other, in pixels.
_SMALLEST, _WIDEST, _HIGHEST = 320, 640, 800
_LEGEND_HEIGHT, _SAMPLE_WIDTH, _LETTER_WIDTH = 32, 64, 10
_HALO, _SIGN_SIZE = 2, 18


@dataclass(frozen=True)
class Mark:
    """How objects of one kind are drawn.

    Attributes:
        name: what the legend calls them.
        sign: stands on each.
        color: of the outline.
        thickness: of it, in pixels.
        dash: lengths in pixels of what is drawn and left out in turn; (1, 0) = a whole line.
    """

    name: str
    sign: str
    color: Color
    thickness: int
    dash: tuple[int, int] = (1, 0)


FOUND = Mark("found", "", (86, 180, 233), 1)
MISSED = Mark("missed", "−", (240, 228, 66), 2, (8, 5))
SPLIT = Mark("split", "S", (255, 255, 255), 2, (14, 4))
MERGED = Mark("merged", "M", (255, 110, 30), 2)
INVENTED = Mark("invented", "+", (240, 130, 210), 2, (2, 5))
DIFFERENT = Mark("outline differs", "≠", (90, 220, 160), 2, (5, 4))
MARKS = (FOUND, MISSED, MERGED, SPLIT, INVENTED, DIFFERENT)


def draw_comparison(image: NDArray[np.uint8], true: MaskCrops, predicted: MaskCrops, errors: PictureErrors) -> NDArray:
    """The objects that people outlined, and beside them those that were found.

    Small pictures are magnified by a whole factor, large ones made smaller.

    Args:
        image: RGB [H, W, 3].
        true, predicted: masks of the picture.
        errors: of both.
    """
    panel, factor = _scaled(image)
    return side_by_side(
        {
            f"outlined by people: {len(true)}": draw_marked(panel, true, true_marks(errors), factor),
            f"counted by the model: {len(predicted)}": draw_marked(panel, predicted, predicted_marks(errors), factor),
        }
    )


def true_marks(errors: PictureErrors) -> list[Mark]:
    """The mark of each true object."""
    return [
        SPLIT if split else FOUND if found else MERGED if merged else MISSED
        for split, found, merged in zip(errors.split, errors.found, errors.within_merged, strict=True)
    ]


def predicted_marks(errors: PictureErrors) -> list[Mark]:
    """The mark of each predicted object."""
    flags = zip(errors.merged, errors.piece, errors.right, errors.invented, strict=True)
    return [
        MERGED if merged else SPLIT if piece else FOUND if right else INVENTED if invented else DIFFERENT
        for merged, piece, right, invented in flags
    ]


def _scaled(image: NDArray[np.uint8]) -> tuple[NDArray, float]:
    """The picture as it is shown, and its scale."""
    height, width = image.shape[:2]
    shrink = min(1.0, _WIDEST / width, _HIGHEST / height)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA), shrink
    factor = min(magnification(image, _SMALLEST), max(1, _WIDEST // width), max(1, _HIGHEST // height))
    return magnify(image, factor), factor


def draw_marked(panel: NDArray[np.uint8], masks: MaskCrops, marks: Sequence[Mark], factor: float) -> NDArray[np.uint8]:
    """Outlines and signs of the masks, one mark for each, on a picture [h, w, 3] that is scaled by ``factor``."""
    result = np.ascontiguousarray(panel).copy()
    signs: dict[Mark, list] = {}
    # What is wrong lies above what is right.
    for index in sorted(range(len(masks)), key=lambda number: marks[number] is not FOUND):
        crop, (top, left), mark = masks.crops[index], masks.corners[index], marks[index]
        contours, _ = cv2.findContours(crop.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            points = (contour[:, 0] + (left, top) + 0.5) * factor - 0.5
            _draw_outline(result, points, mark)
        if mark.sign:
            corner = (top * factor, (left + crop.shape[1]) * factor)
            signs.setdefault(mark, []).append((mark.sign, _beside(corner, result.shape)))
    for mark, texts in signs.items():
        result = write_at(result, texts, mark.color, _SIGN_SIZE)
    return result


def _beside(corner: tuple[float, float], shape: tuple[int, ...]) -> tuple[float, float]:
    """Where a sign stands whole and hides little: outside of an object's upper right ``corner`` (y, x)."""
    reach = _SIGN_SIZE / 2
    y, x = corner[0] - reach / 2, corner[1] + reach / 2
    return max(reach, min(y, shape[0] - reach)), max(reach, min(x, shape[1] - reach))


def _draw_outline(picture: NDArray[np.uint8], points: NDArray[np.float64], mark: Mark) -> None:
    """Draw a closed line through points [n, 2] (x, y) into the picture; around what is drawn it is dark."""
    closed = np.concatenate([points, points[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    steps = np.arange(0, max(1, np.ceil(along[-1])))
    path = np.stack([np.interp(steps, along, closed[:, axis]) for axis in (0, 1)], axis=1)
    drawn, left_out = mark.dash
    whole = [np.concatenate([path, path[:1]])]
    dashes = [path[start : start + drawn] for start in range(0, len(path), drawn + left_out)] if left_out else whole
    lines = [np.round(dash).astype(np.int32)[:, None] for dash in dashes]
    if mark is not FOUND:
        cv2.polylines(picture, lines, False, BACKGROUND, mark.thickness + _HALO)
    cv2.polylines(picture, lines, False, mark.color, mark.thickness)


def draw_legend(marks: Sequence[Mark] = MARKS) -> NDArray[np.uint8]:
    """A sample of every mark with its name."""
    cells = []
    for mark in marks:
        sample = np.full((_LEGEND_HEIGHT, _SAMPLE_WIDTH, 3), BACKGROUND, np.uint8)
        right, bottom = _SAMPLE_WIDTH - 2 * GAP, _LEGEND_HEIGHT - 2 * GAP
        corners = np.array([(2 * GAP, 2 * GAP), (right, 2 * GAP), (right, bottom), (2 * GAP, bottom)], dtype=np.float64)
        _draw_outline(sample, corners, mark)
        sample = write_at(sample, [(mark.sign, (_LEGEND_HEIGHT / 2, _SAMPLE_WIDTH / 2))], mark.color, _SIGN_SIZE)
        cells += [sample, text_cell(mark.name, _LEGEND_HEIGHT, _LETTER_WIDTH * len(mark.name) + 2 * GAP)]
    return grid([cells])
