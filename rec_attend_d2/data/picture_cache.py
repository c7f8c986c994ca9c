"""Decoded training pictures, kept while there is room: decoding hundreds of masks takes longer than training on them.

Shapes: `H, W` picture, `N` objects.
"""

import logging
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..structures import Crop
from .dataset_mapper import check_size
from .image_io import read_image
from .instances import class_of
from .segmentation import annotation_crop
from .windows import CLAIMED

logger = logging.getLogger(__name__)

# Bytes that the pictures of a process may take.
_ROOM = 512 * 2**20


@dataclass(frozen=True)
class Picture:
    """A training picture.

    Attributes:
        image: uint8 [H, W] where it is grey, else [H, W, 3] BGR.
        labels: int32 [H, W], k + 1 where object k is, 0 where none is, CLAIMED in crowds. Of overlapping objects the
            smaller has the pixels.
        classes: int64 [N].
        areas: int64 [N], pixels.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    classes: NDArray[np.int64]
    areas: NDArray[np.int64]


class PictureCache:
    """Reads pictures with their annotations, and keeps those used last.

    Attributes:
        crowd_regions: crowd annotations so far; they mark groups, not objects, and training finds nothing there.
    """

    def __init__(self, contrast_percentiles: Sequence[float]):
        self._contrast_percentiles = contrast_percentiles
        self._pictures: OrderedDict[tuple[str, int], Picture] = OrderedDict()
        self._bytes = 0
        self.crowd_regions = 0

    def read(self, record: dict) -> Picture:
        """The picture of a dataset dict. Raises FileNotFoundError or ValueError, which name the file."""
        # Of two data sets, or two categories, a file may have different annotations.
        key = record["file_name"], hash(pickle.dumps(record.get("annotations")))
        if key in self._pictures:
            self._pictures.move_to_end(key)
            return self._pictures[key]
        picture = self._load(record)
        self._pictures[key] = picture
        self._bytes += _size(picture)
        while self._bytes > _ROOM and len(self._pictures) > 1:
            self._bytes -= _size(self._pictures.popitem(last=False)[1])
        return picture

    def _load(self, record: dict) -> Picture:
        name = record["file_name"]
        if "annotations" not in record:
            raise ValueError(
                f"{name} has no annotations, which training needs. Name a data set that has them in DATASETS.TRAIN."
            )
        image = read_image(name, self._contrast_percentiles)
        check_size(record, image.shape[:2])
        if (image == image[..., :1]).all():
            image = np.ascontiguousarray(image[..., 0])
        labels, classes, crowds = label_image(record["annotations"], image.shape[:2], name)
        if crowds and self.crowd_regions == 0:
            logger.warning(
                f"{name} has {crowds} crowd annotation(s): training neither finds nor misses anything there."
            )
        self.crowd_regions += crowds
        areas = np.bincount(np.maximum(labels, 0).ravel(), minlength=len(classes) + 1)[1:]
        return Picture(image, labels, classes, areas)


def _size(picture: Picture) -> int:
    return picture.image.nbytes + picture.labels.nbytes


def label_image(
    annotations: Sequence[dict], size: tuple[int, int], file_name: str
) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """Label image [H, W] and classes [N] of annotations as of :class:`Picture`, and how many of them are crowds.

    Raises:
        ValueError: an annotation without valid segmentation or class.
    """
    labels = np.zeros(size, np.int32)
    objects: list[tuple[Crop, int]] = []
    crowds = 0
    for index, annotation in enumerate(annotations):
        where = f"{file_name}: annotation {annotation.get('id', f'number {index}')}"
        crop = annotation_crop(annotation, size, where)
        if annotation.get("iscrowd", 0):
            paint(labels, crop, CLAIMED)
            crowds += 1
        else:
            objects.append((crop, class_of(annotation, where)))
    objects.sort(key=lambda item: -np.count_nonzero(item[0][0]))
    for number, (crop, _) in enumerate(objects, start=1):
        paint(labels, crop, number)
    return labels, np.array([class_ for _, class_ in objects], dtype=np.int64), crowds


def paint(labels: NDArray[np.int32], crop: Crop, value: int) -> None:
    """Set the pixels of a crop in a label image [H, W], in place."""
    mask, (y, x) = crop
    labels[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = value
