"""A miniature of Cityscapes: rendered scenes in its official tree.

Instance and label images are drawn from the polygon files by cityscapesscripts' own code, so they agree.

Shapes: `H, W` image in pixels.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rec_attend_d2.data.cityscapes_scripts import cityscapes_module, draw_instance_ids
from rec_attend_d2.data.datasets.cityscapes import LABEL_IDS
from rec_attend_d2.data.datasets.cityscapes_files import city_of

from .scenes import NEAREST, Scene, draw_scene

IMAGES_PER_SPLIT = {"train": 6, "val": 4, "test": 2, "train_extra": 2}
_CITIES = {
    "train": ("aachen", "bochum"),
    "val": ("frankfurt", "munster"),
    "test": ("berlin", "bonn"),
    "train_extra": ("augsburg", "bamberg"),
}
_TRUTH_TYPES = {"train": "gtFine", "val": "gtFine", "train_extra": "gtCoarse"}
_FRAME = 19  # the frame of a sequence that is labelled in the real data set
# Coarse outlines are this much (share of an object's height) away from the true ones.
_COARSE_TOLERANCE = 0.1
_DARK = 30
# The real data set's camera; focal lengths and centre are those of images 2048 pixels wide.
_BASELINE = 0.209313
_REAL_WIDTH, _FX, _FY, _U0, _V0 = 2048, 2262.52, 2265.3017905988554, 1096.98, 513.137
_EXTRINSIC = {"baseline": _BASELINE, "pitch": 0.038, "roll": 0.0, "x": 1.7, "y": 0.1, "yaw": -0.0195, "z": 1.22}
# Share of pixels where stereo matching found nothing.
_UNMATCHED = 0.05

Polygon = list[list[int]]


def write_cityscapes(
    root: str | os.PathLike,
    images_per_split: Mapping[str, int] | None = None,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
) -> None:
    """Write ROOT/cityscapes in the format of the real data set, two cities per split.

    leftImg8bit of all splits; gtFine (train, val) or gtCoarse (train_extra) with polygons, instanceIds, labelIds and
    color; disparity and camera of val. Images of test have no labels. There are groups of objects and void areas.

    Args:
        root: folder that will hold "cityscapes".
        images_per_split: default :data:`IMAGES_PER_SPLIT`; a split left out gets none.
        size: (H, W); 1024 x 2048 in the real data set. Same arguments give the same files.
        seed: of all randomness.

    Raises:
        FileExistsError: there is a Cityscapes already.
        ValueError: an unknown split.
        ImportError: cityscapesscripts is missing.
    """
    counts = IMAGES_PER_SPLIT if images_per_split is None else images_per_split
    unknown = sorted(set(counts) - set(_CITIES))
    if unknown:
        raise ValueError(f"Cityscapes has no split {unknown[0]!r}; its splits are {', '.join(_CITIES)}.")
    base = Path(root) / "cityscapes"
    if base.exists():
        raise FileExistsError(f"{base.absolute()} exists. Name another root: a miniature does not replace real data.")
    for split_number, (split, cities) in enumerate(_CITIES.items()):
        for index in range(counts.get(split, 0)):
            rng = np.random.default_rng([seed, split_number, index])
            stem = f"{cities[index % len(cities)]}_{index // len(cities):06d}_{_FRAME:06d}"
            _write_image(base, split, stem, rng, size)


def _write_image(base: Path, split: str, stem: str, rng: np.random.Generator, size: tuple[int, int]) -> None:
    scene = draw_scene(rng, size, _kinds(rng))
    image = scene.image.copy()
    hood = _fill(_ego_vehicle(size), size)
    image[hood] = _DARK
    _save(_path(base, "leftImg8bit", split, stem, "leftImg8bit.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if split in _TRUTH_TYPES:
        truth_type = _TRUTH_TYPES[split]
        tolerance = _COARSE_TOLERANCE if truth_type == "gtCoarse" else 0.0
        objects = _labelled_objects(scene, tolerance, groups=int(rng.integers(0, 3)))
        _write_truth(_path(base, truth_type, split, stem, f"{truth_type}_polygons.json"), objects, size)
    if split == "val":
        camera = _camera(size)
        _save(_path(base, "disparity", split, stem, "disparity.png"), _disparity(rng, scene, camera))
        _write_json(_path(base, "camera", split, stem, "camera.json"), camera)


def _kinds(rng: np.random.Generator) -> list[str]:
    """One object of every class, some more, and now and then a vehicle that is not evaluated."""
    more = rng.choice(["car", "person", "bicycle"], rng.integers(1, 4)).tolist()
    kinds = [*LABEL_IDS, *more, *rng.choice(["caravan", "trailer"], rng.integers(0, 2)).tolist()]
    return [kinds[int(i)] for i in rng.permutation(len(kinds))]


def _labelled_objects(scene: Scene, tolerance: float, groups: int) -> list[tuple[str, Polygon]]:
    """Label and polygon of all that was annotated, in drawing order: what is nearer hides what is behind it.

    Args:
        scene: with the farthest object first.
        tolerance: of the outlines, as a share of the object's height.
        groups: so many of the farthest objects are called groups.
    """
    height, width = scene.road.shape
    horizon = int(np.flatnonzero(scene.road.any(axis=1))[0])
    right, bottom, margin = width - 1, height - 1, max(1, width // 200)
    # Coarse annotation leaves most of the background out.
    objects = [("road", _rectangle(0, horizon, right, bottom))]
    if tolerance == 0:
        objects.append(("building", _rectangle(0, 0, right, horizon - 1)))
    for index, (kind, mask) in enumerate(zip(scene.kinds, scene.masks, strict=True)):
        grouped = index < groups and kind in LABEL_IDS
        objects.append((kind + "group" * grouped, _outline(mask, tolerance)))
    return [
        *objects,
        ("ego vehicle", _ego_vehicle((height, width))),
        ("rectification border", _rectangle(0, 0, margin - 1, bottom)),
        ("out of roi", _rectangle(right - margin + 1, 0, right, bottom)),
    ]


def _outline(mask: NDArray[np.bool_], tolerance: float) -> Polygon:
    """One polygon around a mask [H, W], all of its parts included.

    Parts are joined by bridges of no width; the object that separates them is drawn over the bridges.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if tolerance:
        largest = max(contours, key=cv2.contourArea)
        coarse = cv2.approxPolyDP(largest, tolerance * float(np.ptp(largest[..., 1])), True)
        contours = [coarse if len(coarse) >= 3 else largest]
    closed = [np.concatenate([contour, contour[:1]]).reshape(-1, 2).tolist() for contour in contours]
    polygon = [point for contour in closed for point in contour]
    # Back the way it came, from part to part.
    polygon += [contour[0] for contour in closed[-2::-1]]
    # A line or a point is a polygon too.
    return polygon if len(polygon) >= 3 else [*polygon, *polygon[-1:] * 2]


def _rectangle(left: int, top: int, right: int, bottom: int) -> Polygon:
    """Corners of the rectangle whose first and last pixels are given, all included."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def _ego_vehicle(size: tuple[int, int]) -> Polygon:
    """Hood of the camera's own car, at the lower border of an image of ``size`` (H, W)."""
    height, width = size
    top = height - max(1, height // 20)
    return [[width // 4, height - 1], [width // 3, top], [2 * width // 3, top], [3 * width // 4, height - 1]]


def _fill(polygon: Polygon, size: tuple[int, int]) -> NDArray[np.bool_]:
    return cv2.fillPoly(np.zeros(size, dtype=np.uint8), [np.array(polygon)], 1).astype(bool)


def _write_truth(json_file: Path, objects: Sequence[tuple[str, Polygon]], size: tuple[int, int]) -> None:
    """Write ``*_polygons.json`` and, drawn from it, the images beside it."""
    content = {
        "imgHeight": size[0],
        "imgWidth": size[1],
        "objects": [{"label": label, "polygon": polygon} for label, polygon in objects],
    }
    _write_json(json_file, content)
    start = str(json_file).removesuffix("polygons.json")
    _save(Path(start + "instanceIds.png"), draw_instance_ids(json_file))
    draw_labels = cityscapes_module("preparation.json2labelImg").json2labelImg
    draw_labels(str(json_file), start + "labelIds.png", "ids")
    draw_labels(str(json_file), start + "color.png", "color")


def _camera(size: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Content of a camera file: the real camera, scaled to images of ``size`` (H, W)."""
    scale = size[1] / _REAL_WIDTH
    intrinsic = {"fx": _FX * scale, "fy": _FY * scale, "u0": _U0 * scale, "v0": _V0 * scale}
    return {"extrinsic": _EXTRINSIC, "intrinsic": intrinsic}


def _disparity(rng: np.random.Generator, scene: Scene, camera: dict) -> NDArray[np.uint16]:
    """Disparity image [H, W]: 256 * disparity in pixels + 1; 0 where it is unknown, as in the sky."""
    rows = np.arange(scene.road.shape[0])
    horizon = int(np.flatnonzero(scene.road.any(axis=1))[0])
    # The road's nearest visible point is at the image's lower border.
    row_distance = NEAREST * (rows[-1] - horizon + 1) / np.maximum(1, rows - horizon + 1)
    distance = np.where(scene.road, row_distance[:, None], np.inf)
    for mask, object_distance in zip(scene.masks, scene.distances, strict=True):
        distance[mask] = object_distance
    disparity = camera["extrinsic"]["baseline"] * camera["intrinsic"]["fx"] / distance
    encoded = np.rint(256 * disparity + 1).astype(np.uint16)
    encoded[np.isinf(distance) | (rng.random(distance.shape) < _UNMATCHED)] = 0
    return encoded


def _path(base: Path, kind: str, split: str, stem: str, ending: str) -> Path:
    path = base / kind / split / city_of(stem) / f"{stem}_{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _save(path: Path, image: NDArray) -> None:
    # imwrite answers a path it cannot write to by returning false only.
    if not cv2.imwrite(str(path), image):
        raise OSError(f"Cannot write {path}.")


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
