"""A miniature of COCO 2017: rendered street scenes in the format of its instance annotations.

Shapes: `N` objects, `H, W` image; pixels.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
from numpy.typing import NDArray

from .scenes import Scene, draw_scene

# The official ids; the names are known to draw_scene.
CATEGORIES = (
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "vehicle", "id": 2, "name": "bicycle"},
    {"supercategory": "vehicle", "id": 3, "name": "car"},
    {"supercategory": "animal", "id": 24, "name": "zebra"},
)
SPLITS = ("train", "val")

# What the first images of each split show; these and no others are guaranteed. Kinds of the objects, and how many of
# the persons nearest to the camera are annotated one by one, the others being one crowd; None = all.
_FIRST_IMAGES: tuple[tuple[tuple[str, ...], int | None], ...] = (
    (("person", "zebra", "car"), None),
    (("person",) * 6, 2),
    ((), None),
    (("person",) * 4, 0),
    (("zebra", "zebra", "zebra", "bicycle"), None),
)
_LEAST_IMAGES = len(_FIRST_IMAGES)
# Annotations of crowds have ids far from all others in the official files too.
_FIRST_CROWD_ID = 900_100_000_000
_IDS_PER_SPLIT = 100_000
_JPEG_QUALITY = 95
_MOST_DRAWINGS = 100

_CATEGORY_IDS = {str(category["name"]): category["id"] for category in CATEGORIES}


def write_coco(root: str | Path, images: int = 8, size: tuple[int, int] = (96, 128), seed: int = 0) -> Path:
    """Write ``coco/annotations/instances_{train,val}2017.json`` and JPEG images in ``coco/{train,val}2017``.

    Among the images of each split are one of a person, a zebra and a car, one of persons and a crowd of others, one
    without any object, one with nothing but a crowd, and one of zebras. Objects are polygons, crowds uncompressed RLEs.

    Args:
        root: folder of all data sets.
        images: in each split, at least 5.
        size: (H, W) of every second image; the others are turned by 90 degrees.
        seed: the same seed gives the same files.

    Returns:
        ``root``/coco.

    Raises:
        ValueError: too few images.
    """
    if images < _LEAST_IMAGES:
        raise ValueError(f"A miniature of COCO needs at least {_LEAST_IMAGES} images in each split, not {images}.")
    folder = Path(root) / "coco"
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(SPLITS):
        image_folder = folder / f"{split}2017"
        image_folder.mkdir(exist_ok=True)
        rng = np.random.default_rng([seed, number])
        content = _draw_split(rng, image_folder, images, size, first_id=1 + number * _IDS_PER_SPLIT)
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return folder


def _draw_split(
    rng: np.random.Generator, image_folder: Path, images: int, size: tuple[int, int], first_id: int
) -> dict:
    """Write the images of a split; returns the content of its json."""
    records: list[dict] = []
    annotations: list[dict] = []
    for index in range(images):
        image_id = first_id + index
        kinds, single_persons = _FIRST_IMAGES[index] if index < _LEAST_IMAGES else (_random_kinds(rng), None)
        scene = _draw_complete(rng, size if index % 2 == 0 else size[::-1], kinds)
        record = _image_record(image_id, scene)
        if not cv2.imwrite(
            str(image_folder / record["file_name"]), scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        ):
            raise OSError(f"{image_folder / record['file_name']} could not be written.")
        records.append(record)
        annotations += _annotate(scene, image_id, single_persons)
    for number, annotation in enumerate(annotations):
        annotation["id"] = number + (_FIRST_CROWD_ID if annotation["iscrowd"] else 1) + first_id
    return {
        "info": {
            "description": "Rendered miniature in the format of COCO 2017",
            "url": "",
            "version": "1.0",
            "year": 2017,
            "contributor": "rec_attend_d2",
            "date_created": "2017/09/01",
        },
        "licenses": [{"url": "", "id": 1, "name": "As this project"}],
        # In the official files neither list is sorted.
        "images": [records[i] for i in rng.permutation(len(records))],
        "annotations": [annotations[i] for i in rng.permutation(len(annotations))],
        "categories": list(CATEGORIES),
    }


def _random_kinds(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(str(kind) for kind in rng.choice(list(_CATEGORY_IDS), size=int(rng.integers(1, 6))))


def _draw_complete(rng: np.random.Generator, size: tuple[int, int], kinds: Sequence[str]) -> Scene:
    """A scene in which every object is seen."""
    for _ in range(_MOST_DRAWINGS):
        scene = draw_scene(rng, size, kinds)
        if len(scene.kinds) == len(kinds):
            return scene
    raise ValueError(f"An image of (height, width) {size} is too small to show {len(kinds)} objects.")


def _image_record(image_id: int, scene: Scene) -> dict:
    height, width = scene.image.shape[:2]
    return {
        "license": 1,
        "file_name": f"{image_id:012d}.jpg",
        "coco_url": "",
        "height": height,
        "width": width,
        "date_captured": "2017-09-01 12:00:00",
        "flickr_url": "",
        "id": image_id,
    }


def _annotate(scene: Scene, image_id: int, single_persons: int | None) -> list[dict]:
    """Annotations without ids; all persons but the nearest ``single_persons`` become one crowd (None: none do)."""
    persons = [index for index, kind in enumerate(scene.kinds) if kind == "person"]
    # Objects are sorted from far to near.
    crowd = [] if single_persons is None else persons[: len(persons) - single_persons]
    annotations = [
        _annotation(image_id, scene.kinds[index], _outline(mask), mask.shape)
        for index, mask in enumerate(scene.masks)
        if index not in crowd
    ]
    if crowd:
        region = np.logical_or.reduce(scene.masks[crowd])
        annotations.append(_annotation(image_id, "person", _uncompressed_rle(region), region.shape))
    return annotations


def _annotation(image_id: int, kind: str, segmentation: list | dict, size: tuple[int, ...]) -> dict:
    rles = mask_util.frPyObjects(segmentation, *size)
    rle = mask_util.merge(rles) if isinstance(rles, list) else rles
    return {
        "segmentation": segmentation,
        "area": float(mask_util.area(rle)),
        "iscrowd": int(isinstance(segmentation, dict)),
        "image_id": image_id,
        "bbox": mask_util.toBbox(rle).tolist(),
        "category_id": _CATEGORY_IDS[kind],
    }


def _outline(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...] along the pixels' edges around each part of ``mask`` [H, W]; holes are filled."""
    # Of three small pixels the outer two have a contour next to the edge of the pixel.
    finer = np.kron(mask, np.ones((3, 3))).astype(np.uint8)
    contours, _ = cv2.findContours(finer, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [np.rint(contour.reshape(-1) / 3).tolist() for contour in contours]


def _uncompressed_rle(mask: NDArray[np.bool_]) -> dict:
    """COCO's RLE of ``mask`` [H, W] with a list of counts, as official files have for crowds."""
    pixels = mask.flatten(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate([[0], changes, [pixels.size]])
    # The first run is of zeros.
    counts = ([0] if pixels[0] else []) + np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": counts}
