"""Drawing on uint8 RGB arrays [H, W, 3]: magnify, tint, heat, boxes, text and grids of cells.

Shapes: `H, W` picture in pixels. Every function returns a new array; none changes its input.
"""

import functools
import os
from collections.abc import Iterable, Sequence

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..structures import AnyMasks, MaskCrops, as_crops
from .colors import BACKGROUND, TEXT, Color

TEXT_SIZE = 15
# Between cells and around text, in pixels.
GAP = 4


@functools.lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib brings a font along, so that the pictures need none of the system's.
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def magnification(image: np.ndarray, smallest: int) -> int:
    """Whole factor >= 1 that brings the shorter side of an image [H, W, ...] to at least ``smallest`` pixels."""
    return max(1, -(-smallest // min(image.shape[:2])))


def magnify(image: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel of [H, W, ...] becomes a square of ``factor`` x ``factor`` pixels, without any blur."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def magnify_masks(masks: AnyMasks, factor: int) -> MaskCrops:
    """Masks, magnified like :func:`magnify`."""
    small = as_crops(masks)
    height, width = small.image_size
    crops = [magnify(crop, factor) for crop in small.crops]
    return MaskCrops(crops, small.corners * factor, (height * factor, width * factor))


def gray_picture(values: np.ndarray) -> np.ndarray:
    """[H, W] in 0..1 (clipped) -> gray picture [H, W, 3], 0 black and 1 white."""
    return cv2.cvtColor((values.clip(0, 1) * 255).round().astype(np.uint8), cv2.COLOR_GRAY2RGB)


def tint(image: np.ndarray, weights: np.ndarray, color: Color, strength: float = 0.65) -> np.ndarray:
    """Mix ``color`` into the picture [H, W, 3].

    Args:
        weights: [H, W] in 0..1 or bool, where to mix it in.
        strength: share of the colour where the weight is 1.
    """
    share = weights.astype(np.float32)[:, :, None].clip(0, 1) * strength
    mixed = image * (1 - share) + np.array(color, dtype=np.float32) * share
    return mixed.round().astype(np.uint8)


def heat_overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat in 0..1, [H, W], over a dimmed picture [H, W, 3]: dark where 0, red, then yellow, then white where 1."""
    colors = cv2.applyColorMap((heat.clip(0, 1) * 255).round().astype(np.uint8), cv2.COLORMAP_HOT)[:, :, ::-1]
    share = heat.astype(np.float32).clip(0, 1)[:, :, None] * 0.75
    return (image * 0.6 * (1 - share) + colors * share).round().astype(np.uint8)


def draw_boxes(image: np.ndarray, corners: np.ndarray, colors: Sequence[Color], thickness: int = 2) -> np.ndarray:
    """Outlines of boxes on the picture [H, W, 3]; what lies outside of the picture is cut off.

    Args:
        corners: [n, 4], (x0, y0, x1, y1) in pixels of the picture.
        colors: of each.
        thickness: of the lines, in pixels.
    """
    # A far-off box would overflow the drawing routine's integers.
    limit = 2 * max(image.shape)
    result = np.ascontiguousarray(image).copy()
    for (x0, y0, x1, y1), color in zip(np.round(corners).clip(-limit, limit).astype(int).tolist(), colors, strict=True):
        cv2.rectangle(result, (x0, y0), (x1, y1), color, thickness)
    return result


def draw_masks(
    image: np.ndarray, masks: MaskCrops, colors: Sequence[Color], strength: float = 0.45, thickness: int = 1
) -> np.ndarray:
    """Masks with outlines on the picture [H, W, 3], one over the other; each takes time for its own pixels only.

    Args:
        masks: N masks of a picture of this size.
        colors: of each.
        strength: share of the colour inside.
        thickness: of the outlines, in pixels.
    """
    result = np.ascontiguousarray(image).copy()
    for crop, window, color in zip(masks.crops, masks.windows, colors, strict=True):
        if crop.size:
            result[window] = tint(result[window], crop, color, strength)
            contours, _ = cv2.findContours(crop.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(result, contours, -1, color, thickness, offset=(window[1].start, window[0].start))
    return result


def dimmed(image: np.ndarray) -> np.ndarray:
    """The picture [H, W, 3] three quarters on the way to the background colour."""
    return tint(image, np.ones(image.shape[:2]), BACKGROUND, 0.7)


def text_cell(text: str, height: int, width: int, color: Color = TEXT, size: int = TEXT_SIZE) -> np.ndarray:
    """``text`` (which may have several lines) in the middle of a cell [height, width, 3]."""
    cell = Image.new("RGB", (width, height), BACKGROUND)
    font = _font(size)
    middle = (width / 2, height / 2)
    ImageDraw.Draw(cell).multiline_text(middle, text, fill=color, font=font, anchor="mm", align="center")
    return np.array(cell)


def write_corner(image: np.ndarray, text: str, color: Color = TEXT, size: int = TEXT_SIZE) -> np.ndarray:
    """``text`` on a dark label in the top left corner of the picture [H, W, 3]."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    font = _font(size)
    _, _, right, bottom = draw.multiline_textbbox((GAP, GAP), text, font=font)
    draw.rectangle((0, 0, right + GAP, bottom + GAP), fill=BACKGROUND)
    draw.multiline_text((GAP, GAP), text, fill=color, font=font)
    return np.array(picture)


def write_at(
    image: np.ndarray, texts: Iterable[tuple[str, tuple[float, float]]], color: Color = TEXT, size: int = TEXT_SIZE
) -> np.ndarray:
    """Texts with a dark outline on the picture [H, W, 3], each with its middle at (y, x), in pixels of the picture."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for text, (y, x) in texts:
        draw.text((x, y), text, fill=color, font=_font(size), anchor="mm", stroke_width=2, stroke_fill=BACKGROUND)
    return np.array(picture)


def striped(image: np.ndarray, mask: np.ndarray, color: Color, period: int = 8) -> np.ndarray:
    """Diagonal stripes, half of ``period`` pixels wide, on the picture [H, W, 3] where the bool mask [H, W] is set."""
    rows, columns = np.indices(mask.shape)
    return tint(image, mask & ((rows + columns) % period < period // 2), color)


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture [h, w, 3] as large as it fits into the middle of a cell [height, width, 3], without any blur."""
    return np.array(ImageOps.pad(Image.fromarray(image), (width, height), Image.Resampling.NEAREST, BACKGROUND))


def grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of cells as one picture, with thin gaps below and to the right of each cell.

    Args:
        rows: cells [h, w, 3]; all cells of a row have the same height, and all rows together the same width.
    """
    return np.concatenate([np.concatenate([_with_gap(cell) for cell in row], axis=1) for row in rows], axis=0)


def _with_gap(cell: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(cell, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=BACKGROUND)
