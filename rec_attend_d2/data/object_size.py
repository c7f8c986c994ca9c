"""How large objects are: the one thing that the fast model has to know of a data set.

The typical width of the objects of a picture is the square root of their median area; that of a data set is the median
over its pictures, so that a picture with hundreds of objects counts no more than another.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from .segmentation import annotation_crop

logger = logging.getLogger(__name__)

# So many pictures, spread evenly, stand for a data set.
_PICTURES = 300
# A typical object has to keep so many pixels of width in the network, to be told from its neighbours.
SMALLEST_WIDTH = 4.0


def object_size(cfg: CfgNode) -> float:
    """Typical width of an object in pixels of the file: INPUT.OBJECT_SIZE, or as measured on DATASETS.TRAIN.

    Raises:
        ValueError: INPUT.OBJECT_SIZE is negative or no number, or it is 0 and the data sets have no objects.
    """
    size = cfg.INPUT.OBJECT_SIZE
    if not (math.isfinite(size) and size >= 0):
        raise ValueError(
            f"INPUT.OBJECT_SIZE is {size}. Give the typical width of an object in pixels of the file, or 0 to have it "
            "measured on DATASETS.TRAIN."
        )
    return float(size) if size > 0 else measured_object_size(cfg.DATASETS.TRAIN)


def typical_width(areas: Sequence[int] | Sequence[np.integer]) -> float:
    """Of the objects of a picture, at least one, given their areas: the square root of the median, pixels."""
    return math.sqrt(np.median(areas))


def measured_object_size(names: Sequence[str]) -> float:
    """Median over pictures of the square root of the median area of their objects, pixels; crowds do not count.

    Args:
        names: of registered data sets.

    Raises:
        ValueError: there is no object.
    """
    records = [record for name in names for record in DatasetCatalog.get(name) if record.get("annotations")]
    chosen = np.linspace(0, len(records) - 1, min(len(records), _PICTURES)).round().astype(int)
    widths = []
    for record in (records[index] for index in chosen):
        size, name = (record["height"], record["width"]), record["file_name"]
        areas = [
            np.count_nonzero(annotation_crop(item, size, f"{name}: annotation {item.get('id', f'number {index}')}")[0])
            for index, item in enumerate(record["annotations"])
            if not item.get("iscrowd", 0)
        ]
        if areas:
            widths.append(typical_width(areas))
    if not widths:
        raise ValueError(
            f"DATASETS.TRAIN {list(names)} has no objects to train on, of which the typical width could be measured: "
            "there are no annotations, or all are crowds (iscrowd 1). Correct them; where nothing is to be trained, "
            "set INPUT.OBJECT_SIZE to the width in pixels of the file."
        )
    return round(float(np.median(widths)), 2)


def resolve_object_size(cfg: CfgNode) -> None:
    """Set INPUT.OBJECT_SIZE in place to what was measured where it is 0, so that it is saved with the config."""
    if cfg.INPUT.OBJECT_SIZE == 0 and cfg.DATASETS.TRAIN:
        cfg.INPUT.OBJECT_SIZE = object_size(cfg)
        logger.info("INPUT.OBJECT_SIZE: objects are typically %.1f pixels wide.", cfg.INPUT.OBJECT_SIZE)


def network_scale(cfg: CfgNode) -> float:
    """Network pixels per pixel of the file, of the fast model.

    Raises:
        ValueError: INPUT.OBJECT_PIXELS is too small, or as :func:`object_size`.
    """
    if not cfg.INPUT.OBJECT_PIXELS >= SMALLEST_WIDTH:
        raise ValueError(f"INPUT.OBJECT_PIXELS is {cfg.INPUT.OBJECT_PIXELS}; give at least {SMALLEST_WIDTH}.")
    return cfg.INPUT.OBJECT_PIXELS / object_size(cfg)
