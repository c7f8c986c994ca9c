"""Reads label images: pictures whose pixels say which instance they belong to.

Shapes: `H, W` image size in pixels.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode
from numpy.typing import NDArray
from PIL import Image

from .label_pixels import read_pixels, undecodable, whole_numbers

logger = logging.getLogger(__name__)

# Label image of so many instances is a photograph or a drawing with soft edges.
_MAX_INSTANCES = 1000
# Older releases of Pillow read 16 bits as "I".
_NUMBERED_MODES = ("1", "P", "L", "I;16", "I;16B", "I", "F", "LA", "PA")
_COLOUR_MODES = ("RGB", "RGBA")
# Whose last channel is opacity.
_TRANSPARENT_MODES = ("RGBA", "LA", "PA")
_SMALLEST, _LARGEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max
# Value, or (red, green, blue).
Background = int | tuple[int, int, int]
_FILES_SHOWN = 5


def image_record(path: Path, image_id: str) -> dict:
    """Dataset dict of an image file, without annotations; reads the file's header only.

    Raises:
        ValueError: the file is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except OSError as error:
        raise undecodable(path, error) from error
    return {"file_name": str(path), "image_id": image_id, "height": height, "width": width}


def read_label_image(path: Path, background: Background = 0) -> NDArray[np.int32]:
    """Read a label image.

    Args:
        path: image with a palette (its indices are the labels), whole numbers of any type, or colours. What is
            entirely transparent is background, unless all is.
        background: value or colour (red, green, blue; 0 to 255) of what is no instance; a value stands for a grey in an
            image of colours.

    Returns:
        [H, W]; 0 is background, every other value one instance. Values keep their number if the background is 0 and
        they fit 32 bits; otherwise, and in images of colours, they are numbered from 1 in their order.

    Raises:
        ValueError: the file is damaged, or of another kind; the message names it.
    """
    mode, pixels = read_pixels(path)
    transparent = np.zeros(pixels.shape[:2], bool)
    if mode in _TRANSPARENT_MODES and pixels[..., -1].any():
        transparent = pixels[..., -1] == 0
    if mode in _NUMBERED_MODES:
        if not isinstance(background, int):
            raise ValueError(
                f"Label image {path} has values instead of colours, but the background is the colour {background}. "
                "Give its value."
            )
        values = whole_numbers(pixels[..., 0] if pixels.ndim == 3 else pixels, path)
    elif mode in _COLOUR_MODES:
        values = _color_codes(pixels)
        red, green, blue = (background,) * 3 if isinstance(background, int) else background
        background = red << 32 | green << 16 | blue
    else:
        raise ValueError(
            f"Label image {path} has pixels of Pillow's mode {mode}. Save it with a palette, as grey values of 8, 16 "
            "or 32 bits, or as RGB."
        )
    fits = values.min(initial=0) >= _SMALLEST and values.max(initial=0) <= _LARGEST
    if background == 0 and mode not in _COLOUR_MODES and fits:
        return np.where(transparent, 0, values).astype(np.int32)
    return _number(values, transparent | (values == background))


def _color_codes(pixels: NDArray) -> NDArray[np.int64]:
    """A number for each colour of up to 16 bits a channel."""
    red, green, blue = np.moveaxis(pixels[..., :3].astype(np.int64), 2, 0)
    return red << 32 | green << 16 | blue


def _number(values: NDArray[np.int64], is_background: NDArray[np.bool_]) -> NDArray[np.int32]:
    """0 where ``is_background``; the other values are numbered from 1 in their order."""
    others = np.unique(values[~is_background])
    return np.where(is_background, 0, np.searchsorted(others, values) + 1).astype(np.int32)


def instance_values(labels: NDArray[np.int32], path: Path, limit: int = _MAX_INSTANCES) -> NDArray[np.int32]:
    """The values of a label image [H, W] but 0, in increasing order: [N], at most ``limit``.

    Raises:
        ValueError: there are too many for a label image, or negative ones; the message names ``path``.
    """
    values = np.setdiff1d(labels, [0])
    if len(values) and values[0] < 0 and len(values) <= limit:
        raise ValueError(
            f"Label image {path} has {len(values)} values from {values[0]} to {values[-1]}. Negative ones are no "
            f"objects: if {values[0]} is the background, say so by --background {values[0]}, else save the file again."
        )
    if len(values) > limit:
        raise ValueError(
            f"Label image {path} has {len(values)} values from {values[0]} to {values[-1]}. It is no image of instance "
            "numbers; check the file, or save it again without smoothing."
        )
    return values


def check_size(labels: NDArray, path: Path, size: tuple[int, int], image: str | Path) -> None:
    """Raise a ValueError unless the label file ``path`` with ``labels`` [H, W] has the ``size`` (H, W) of its image."""
    if labels.shape != size:
        raise ValueError(
            f"Label image {path} is {labels.shape[0]} high and {labels.shape[1]} wide, but its image {image} is "
            f"{size[0]} high and {size[1]} wide. Replace one of them."
        )


def coco_object(mask: NDArray[np.bool_]) -> dict:
    """Annotation in COCO's format, without ids and category, of an object's pixels [H, W], at least one."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
        "area": int(mask_util.area(rle)),
        "bbox": mask_util.toBbox(rle).tolist(),
        "iscrowd": 0,
    }


def mask_annotation(mask: NDArray[np.bool_]) -> dict:
    """Detectron2's annotation of class 0 from the pixels [H, W] of an object, at least one."""
    return {**coco_object(mask), "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}


def add_annotations(records: Sequence[dict], label_paths: Sequence[Path]) -> None:
    """Give each record the ``annotations`` of its label image; all are of class 0.

    A gap in the numbering is no error: published label images have gaps, and a label means nothing but "the same
    instance". As it may also be a sign of an instance that was lost, the files are named in one warning.

    Args:
        records: dataset dicts with ``file_name``, ``height`` and ``width``; changed in place.
        label_paths: the label image of each.

    Raises:
        ValueError: a label image is damaged or not of its image's size, or has too many labels to be one.
    """
    with_gaps = []
    for record, path in zip(records, label_paths, strict=True):
        labels = read_label_image(path)
        check_size(labels, path, (record["height"], record["width"]), record["file_name"])
        values = instance_values(labels, path)
        record["annotations"] = [mask_annotation(labels == value) for value in values]
        missing = np.setdiff1d(np.arange(1, len(values) + 1), values)
        if len(missing):
            with_gaps.append(f"{path} (without {missing[0]})")
    if with_gaps:
        logger.warning(
            f"{len(with_gaps)} of {len(records)} label images have gaps in their numbering, which is allowed. "
            f"First: {'; '.join(with_gaps[:_FILES_SHOWN])}."
        )
