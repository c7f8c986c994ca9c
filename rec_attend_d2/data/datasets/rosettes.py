"""The data set "rosettes": drawn plants for tests and first steps, much like the leaf images of the paper's CVPPP task.

It is drawn in some seconds when it is first used, and written as PNG images and COCO annotations.

Shapes: `N` leaves, `S` side of the image in pixels.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
from iopath.common.file_io import file_lock
from numpy.typing import NDArray

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
    if _is_current(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(folder)):
            if not _is_current(folder):
                _replace(folder)
    except OSError as error:
        raise OSError(
            f"The data set 'rosettes' cannot be drawn into {folder.absolute()}: {error}. Set DETECTRON2_DATASETS to a "
            "folder you can write to."
        ) from error
    return folder


def _marker() -> dict:
    return {"version": VERSION, "seed": SEED, "images": IMAGES_PER_SPLIT, "size": IMAGE_SIZE}


def _is_current(folder: Path) -> bool:
    marker = folder / "version.json"
    return marker.is_file() and json.loads(marker.read_text()) == _marker()


def _replace(folder: Path) -> None:
    """Draw into a folder beside ``folder`` and put it in its place."""
    if folder.exists() and not (folder / "version.json").is_file():
        raise ValueError(
            f"{folder.absolute()} exists, but is not the data set this project draws. Move it away, or set "
            "DETECTRON2_DATASETS to another folder."
        )
    fresh = Path(tempfile.mkdtemp(prefix=".rosettes-", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        first = 0
        for split, count in IMAGES_PER_SPLIT.items():
            _write_split(fresh, split, range(first, first + count))
            first += count
        (fresh / "version.json").write_text(json.dumps(_marker()))
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


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
            annotations.append(_coco_annotation(mask, image_id=index + 1, annotation_id=len(annotations) + 1))
    content = {
        "info": {"description": f"Drawn plant rosettes, version {VERSION}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "leaf"}],
    }
    (folder / f"{split}.json").write_text(json.dumps(content))


def _coco_annotation(mask: NDArray[np.bool_], image_id: int, annotation_id: int) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": mask_util.toBbox(rle).tolist(),
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
    }
