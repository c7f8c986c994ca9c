"""Cityscapes: street scenes with eight classes of instances (Cordts et al., CVPR 2016).

What is read below the root is documented in :func:`register_cityscapes`.

Shapes: `H, W` size of an image in pixels, `R` runs of equal pixels.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode
from numpy.typing import NDArray

from .cityscapes_files import (
    check_complete,
    instance_ids_path,
    label_of,
    list_images,
    read_instance_ids,
    unscored_labels,
)
from .label_images import check_size, image_record
from .registration import register_lazily

# Label ids, as the files and the test server use them, of the classes with instances. Class numbers count them from 0.
LABEL_IDS = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
_CLASS_NUMBERS = {label: number for number, label in enumerate(LABEL_IDS.values())}

# Pixels of these labels have no known truth: not labelled at all, or hidden by the camera's own car and optics, or
# (caravan 29, trailer 30) vehicles that belong to no class but look like those that do. The labels static, dynamic and
# ground, which cityscapesscripts puts into its category "void" too, are known to be none of the classes: background.
VOID_LABEL_IDS = {
    "unlabeled": 0,
    "ego vehicle": 1,
    "rectification border": 2,
    "out of roi": 3,
    "caravan": 29,
    "trailer": 30,
}

FINE, COARSE = "gtFine", "gtCoarse"
_MAX_THREADS = 8


def register_cityscapes(root: str | os.PathLike) -> None:
    """Register ``rec_attend_cityscapes_train``, ``_val``, ``_test`` and ``_train_extra``; a repeated call moves them.

    Nothing is read before a data set is used. Names carry a prefix because Detectron2 registers ``cityscapes_*``
    itself. The official tree is expected, as the archives extract::

        ROOT/cityscapes/leftImg8bit/{train,val,test,train_extra}/CITY/CITY_SEQ_FRAME_leftImg8bit.png
        ROOT/cityscapes/gtFine/{train,val}/CITY/CITY_SEQ_FRAME_gtFine_{instanceIds.png or polygons.json}
        ROOT/cityscapes/gtCoarse/train_extra/CITY/CITY_SEQ_FRAME_gtCoarse_{instanceIds.png or polygons.json}
        ROOT/cityscapes/disparity/val/CITY/CITY_SEQ_FRAME_disparity.png   (optional: AP100m and AP50m)
        ROOT/cityscapes/camera/val/CITY/CITY_SEQ_FRAME_camera.json        (optional: AP100m and AP50m)

    Metadata: ``thing_classes``, ``thing_dataset_id_to_contiguous_id`` (label id -> class number), ``evaluator_type``
    "cityscapes_instance", ``image_dir``, ``gt_dir`` (None: no labels) and ``truth_type`` ("gtFine" or "gtCoarse").

    Args:
        root: folder that holds "cityscapes".
    """
    base = Path(root).expanduser() / "cityscapes"
    for split in ("train", "val", "test", "train_extra"):
        truth_type = COARSE if split == "train_extra" else FINE
        image_dir = base / "leftImg8bit" / split
        # The label files of the test split are dummies.
        gt_dir = base / truth_type / split if split != "test" else None
        register_lazily(
            f"rec_attend_cityscapes_{split}",
            partial(load_cityscapes, image_dir, gt_dir, truth_type),
            image_dir=str(image_dir),
            gt_dir=str(gt_dir) if gt_dir else None,
            truth_type=truth_type,
            evaluator_type="cityscapes_instance",
            thing_classes=list(LABEL_IDS),
            thing_dataset_id_to_contiguous_id=dict(_CLASS_NUMBERS),
        )


def load_cityscapes(
    image_dir: str | os.PathLike, gt_dir: str | os.PathLike | None, truth_type: str = FINE
) -> list[dict]:
    """Read one split.

    Args:
        image_dir: folder of the cities' folders with images.
        gt_dir: the same with labels; None: the images have none.
        truth_type: "gtFine" or "gtCoarse", as in the names of the label files.

    Returns:
        Detectron2 dataset dicts sorted by ``image_id``, the stem CITY_SEQUENCE_FRAME. With labels they have
        ``annotations``: one for every instance, and one with ``iscrowd`` 1 for all groups of a class ("cargroup");
        ``void``: COCO RLE of the pixels with a label of :data:`VOID_LABEL_IDS`; ``unscored``: the same of those that
        cityscapesscripts leaves out of semantic scores, which are more ("parking", "static"); both only where there are
        any; and, for gtCoarse, ``coarse``: True.

    Raises:
        FileNotFoundError: a folder is missing or empty, or an image or its labels are.
        ValueError: a file is damaged or of a wrong size, or has labels beyond the class list.
        ImportError: cityscapesscripts is missing.
    """
    images = list_images(Path(image_dir))
    if gt_dir is None:
        return [image_record(path, stem) for stem, path in images.items()]
    check_complete(images, Path(gt_dir), truth_type)
    read = partial(_labelled_record, gt_dir=Path(gt_dir), truth_type=truth_type)
    # Decoding and comparing release Python's lock.
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(read, images, images.values()))


def _labelled_record(stem: str, path: Path, gt_dir: Path, truth_type: str) -> dict:
    record = image_record(path, stem)
    ids = read_instance_ids(gt_dir, stem, truth_type)
    check_size(ids, instance_ids_path(gt_dir, stem, truth_type), (record["height"], record["width"]), path)
    record.update(_describe(ids))
    if truth_type == COARSE:
        record["coarse"] = True
    return record


def _describe(ids: NDArray[np.uint16]) -> dict:
    """``annotations`` and, where there are any such pixels, ``void`` and ``unscored`` of instance ids [H, W]."""
    values, starts = _runs(ids)
    labels = label_of(values)
    annotations = []
    for value in np.unique(values[np.isin(labels, list(_CLASS_NUMBERS))]).tolist():
        rle = _rle(values == value, starts, ids.shape)
        x, y, width, height = mask_util.toBbox(rle).tolist()
        annotations.append(
            {
                "segmentation": rle,
                "bbox": [x, y, x + width, y + height],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": _CLASS_NUMBERS[int(label_of(np.array(value)))],
                "iscrowd": int(value < 1000),
            }
        )
    described: dict = {"annotations": annotations}
    for key, region_labels in (("void", list(VOID_LABEL_IDS.values())), ("unscored", unscored_labels())):
        inside = np.isin(labels, region_labels)
        if inside.any():
            described[key] = _rle(inside, starts, ids.shape)
    return described


def _runs(ids: NDArray) -> tuple[NDArray, NDArray[np.int64]]:
    """Runs of equal pixels of an image [H, W], column by column: values [R], and where each begins [R + 1].

    All masks of an image are made of them, which is several times faster than one mask after the other.
    """
    flat = ids.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    return flat[starts[:-1]], starts


def _rle(inside: NDArray[np.bool_], starts: NDArray[np.int64], size: Sequence[int]) -> dict:
    """COCO RLE of the runs for which ``inside`` [R] is true; ``starts`` as of :func:`_runs`, ``size`` (H, W)."""
    padded = np.concatenate([[False], inside])
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    bounds = np.concatenate([[0], starts[changes], starts[-1:]])
    counts = np.diff(bounds)
    rle = mask_util.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size)
    return {"size": list(size), "counts": rle["counts"].decode("ascii")}
