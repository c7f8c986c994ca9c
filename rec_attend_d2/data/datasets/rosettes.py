"""The data set "rosettes": drawn plants for tests and first steps, much like the leaf images of the paper's CVPPP task.

It is drawn in some seconds when it is first used, and written as PNG images and COCO annotations.

Shapes: `N` leaves, `S` side of the image in pixels.
"""

import json
import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .file_trees import write_folder_once
from .label_images import coco_object
from .rosette_drawing import (
    MAX_LEAVES,
    Leaf,
    grow_leaves,
    illuminate,
    leaf_coverage,
    paint_leaf,
    paint_soil,
)

# What is on disk. Count VERSION up when a change alters the pictures.
VERSION = 1
SEED = 2017
IMAGES_PER_SPLIT = {"train": 400, "val": 60}
IMAGE_SIZE = 128

# A leaf of which fewer pixels than this would be seen is not drawn.
_MIN_VISIBLE_PIXELS = 16
_SUPERSAMPLING = 2
_EMPTY_SHARE = 0.04


def render_plant(seed: int, index: int, size: int = IMAGE_SIZE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one plant with 0 to 12 leaves; the same arguments always give the same picture.

    Args:
        seed: of the data set.
        index: of the plant, not negative.
        size: S.

    Returns:
        Image [S, S, 3] BGR, and the visible part of each leaf [N, S, S], lowest leaf first. No pixel has two leaves.
    """
    rng = np.random.default_rng([seed, index])
    side = size * _SUPERSAMPLING
    count = 0 if rng.random() < _EMPTY_SHARE else int(rng.integers(1, MAX_LEAVES + 1))
    leaves, masks = _visible_leaves(grow_leaves(rng, count), size)
    canvas = paint_soil(rng, side)
    turn = rng.uniform(0, 2 * np.pi)
    light = np.array([np.sin(turn), np.cos(turn)])
    for leaf in leaves:
        paint_leaf(canvas, leaf, leaf_coverage(leaf, side), light, rng)
    canvas = cv2.resize(illuminate(canvas, rng, light), (size, size), interpolation=cv2.INTER_AREA)
    canvas = canvas + rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(1, 4)
    return np.rint(canvas.clip(0, 255)).astype(np.uint8), masks


def _visible_leaves(leaves: list[Leaf], size: int) -> tuple[list[Leaf], NDArray[np.bool_]]:
    """Leaves of which enough is seen, and their masks [N, S, S]."""
    masks: list[NDArray[np.bool_]] = []
    kept: list[Leaf] = []
    taken = np.zeros((size, size), dtype=bool)
    for leaf in reversed(leaves):
        coverage = cv2.resize(leaf_coverage(leaf, size * _SUPERSAMPLING), (size, size), interpolation=cv2.INTER_AREA)
        mask = (coverage >= 0.5) & ~taken
        if mask.sum() >= _MIN_VISIBLE_PIXELS:
            kept.append(leaf)
            masks.append(mask)
            taken |= mask
    return kept[::-1], np.array(masks[::-1], dtype=bool).reshape(-1, size, size)


def ensure_rosettes(root: str | os.PathLike) -> Path:
    """Write the data set below ``root`` unless it is there; safe when several processes call it.

    Args:
        root: folder of all data sets.

    Returns:
        ``root``/rosettes, with train.json, val.json, and the folders train and val.

    Raises:
        ValueError: the folder exists, but was not written by this function.
        OSError: ``root`` cannot be written to.
    """
    folder = Path(root) / "rosettes"
    marker = {"version": VERSION, "seed": SEED, "images": IMAGES_PER_SPLIT, "size": IMAGE_SIZE}
    write_folder_once(folder, "version.json", marker, _write_splits)
    return folder


def _write_splits(folder: Path) -> None:
    first = 0
    for split, count in IMAGES_PER_SPLIT.items():
        _write_split(folder, split, range(first, first + count))
        first += count


def _write_split(folder: Path, split: str, indices: range) -> None:
    images: list[dict] = []
    annotations: list[dict] = []
    (folder / split).mkdir()
    for index in indices:
        image, masks = render_plant(SEED, index)
        file_name = f"plant_{index:04d}.png"
        if not cv2.imwrite(str(folder / split / file_name), image):
            raise OSError(f"{folder / split / file_name} could not be written")
        images.append({"id": index + 1, "file_name": file_name, "height": IMAGE_SIZE, "width": IMAGE_SIZE})
        for mask in masks:
            ids = {"id": len(annotations) + 1, "image_id": index + 1, "category_id": 1}
            annotations.append({**ids, **coco_object(mask)})
    content = {
        "info": {"description": f"Drawn plant rosettes, version {VERSION}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "leaf"}],
    }
    (folder / f"{split}.json").write_text(json.dumps(content))
