"""Decodes and checks the segmentation of one annotation: polygons, COCO RLE or bitmap.

Shapes: `H, W` size of the image file in pixels.
"""

import numpy as np
import pycocotools.mask as mask_util
from numpy.typing import NDArray

from ..structures import Crop, MaskCrops, crop_of_runs, empty_crop, tight_crop

# Longest number in compressed counts, in characters; more would not fit 64 bits.
_LONGEST_NUMBER = 12


def annotation_crop(annotation: dict, size: tuple[int, int], where: str) -> Crop:
    """Decode the segmentation of one annotation, without ever making a mask of the whole image of it.

    Args:
        annotation: its "segmentation" is a list of polygons [x0, y0, x1, y1, ...] in absolute pixels, a COCO RLE
            (counts compressed, or a list), or an array [H, W] that is non-zero inside the object.
        size: (H, W) of the image.
        where: file and annotation, for errors.

    Returns:
        The tight crop [h, w] around the object, at least one pixel, and its place in the image. A polygon too small to
        contain the centre of a pixel gives the pixel it lies in (or the nearest one, for a sliver at the border).

    Raises:
        ValueError: the segmentation is missing, malformed, of another size, or has no pixel inside the image.
    """
    segmentation = annotation.get("segmentation")
    shape = tuple(size)
    if isinstance(segmentation, np.ndarray):
        shape = segmentation.shape
        found = tight_crop(segmentation) if segmentation.ndim == 2 else empty_crop()
    elif isinstance(segmentation, dict):
        found = rle_crop(segmentation, where)
        shape = tuple(segmentation["size"])
    elif isinstance(segmentation, list):
        found = polygon_crop(segmentation, size, where)
    else:
        raise ValueError(
            f"{where} has a segmentation of type {type(segmentation).__name__}. Give polygons, a COCO RLE or a "
            "bitmap array; an object known only by its box cannot be used."
        )
    if shape != tuple(size):
        raise ValueError(
            f"{where} has a mask of shape {list(shape)}, but the image's height and width are {list(size)}. "
            "Give the mask at the size of the image."
        )
    if not found[0].size:
        raise ValueError(f"{where} has no pixel inside the image. Correct its segmentation or remove it.")
    return found


def annotation_mask(annotation: dict, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """As :func:`annotation_crop`, but the mask [H, W] of the whole image."""
    return MaskCrops.from_crops([annotation_crop(annotation, size, where)], size).union()


def rle_crop(rle: dict, where: str) -> Crop:
    """The tight crop of a COCO RLE with compressed or uncompressed counts; [0, 0] of one without a pixel.

    Raises:
        ValueError: no valid RLE; names ``where``.
    """
    return crop_of_runs(rle_runs(rle, where), rle["size"][0])


def rle_runs(rle: dict, where: str) -> NDArray[np.int64]:
    """Lengths of the runs of 0 and 1 pixels in turn, column by column, of a COCO RLE.

    Wrong counts have to be found here, because pycocotools decodes them to random masks.

    Raises:
        ValueError: size or counts are missing, or the runs do not fill the size; names ``where``.
    """
    try:
        height, width = rle["size"]
        counts = rle["counts"]
        if isinstance(counts, list):
            runs = np.array(counts)
        else:
            runs = _decompress_counts(counts.encode("ascii") if isinstance(counts, str) else counts)
        if runs.dtype.kind not in "iu" or runs.min() < 0 or runs.sum() != height * width:
            raise ValueError(f"the runs do not add up to {height} x {width}")
        return runs.astype(np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where} has no valid RLE ({error!r}). It needs 'size' [height, width] and 'counts' that fill it; encode "
            "the mask again."
        ) from error


def _decompress_counts(counts: bytes) -> NDArray[np.int64]:
    """Run lengths from COCO's compressed form: numbers of 5 bits a character, from the third on as differences."""
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 0x20) == 0)
    if len(ends) == 0 or ends[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        raise ValueError("'counts' is no compressed run-length text")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError("'counts' holds a number that is too large")
    position = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 0x1F) << (5 * position), starts)
    runs -= np.where(codes[ends] & 0x10, 1 << (5 * lengths), 0)
    # A run is stored as the difference to the last but one; the first three are not.
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def polygon_crop(polygons: list, size: tuple[int, int], where: str) -> Crop:
    """Fill the polygons of one object.

    Args:
        polygons: each [x0, y0, x1, y1, ...] in absolute pixels, at least three points.
        size: (H, W) of the image.
        where: file and annotation, for errors.

    Returns:
        The tight crop of their union; [0, 0] where they lie outside of the image.

    Raises:
        ValueError: malformed polygons.
    """
    check_polygons(polygons, where)
    height, width = size
    polygons = [np.asarray(polygon, dtype=float).tolist() for polygon in polygons]
    found = rle_crop(mask_util.merge(mask_util.frPyObjects(polygons, height, width)), where)
    if not found[0].size and polygons_meet_image(polygons, size):
        x, y = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons]).mean(axis=0)
        return np.ones((1, 1), dtype=bool), (int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1)))
    return found


def polygons_meet_image(polygons: list, size: tuple[int, int]) -> bool:
    """Whether the bounding box of valid ``polygons`` overlaps an image of ``size`` (H, W)."""
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
    return bool((points.max(axis=0) > 0).all() and (points.min(axis=0) < (size[1], size[0])).all())


def check_polygons(polygons: list, where: str) -> None:
    """Raise a ValueError that names ``where``, unless ``polygons`` is a list of lists of at least three points."""
    try:
        valid = len(polygons) > 0
        for polygon in polygons:
            values = np.asarray(polygon, dtype=float)
            valid = (
                valid and values.ndim == 1 and len(values) >= 6 and len(values) % 2 == 0 and np.isfinite(values).all()
            )
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"{where} has malformed polygons. Give a list of polygons, each [x0, y0, x1, y1, ...] with at least "
            "three points."
        )
