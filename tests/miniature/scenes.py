"""Rendered street scenes with instance masks, classes and distances.

Shapes: `N` objects, `H, W` image; pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Distance of the camera to the nearest and to the farthest object, metres.
NEAREST, FARTHEST = 6.0, 130.0
# Share of an object's pixels that has to be seen for it to count.
_SMALLEST_VISIBLE_SHARE = 0.3
# Height of an object at the nearest distance relative to the image, and its width relative to its height.
_NEAREST_HEIGHT = 0.45
_ASPECTS = {"person": 0.4, "rider": 0.5, "car": 1.6, "truck": 1.4, "bus": 1.3, "train": 3.0, "zebra": 1.5}
_OTHER_ASPECT = 1.1
_HORIZON = 0.4


@dataclass(frozen=True)
class Scene:
    """A rendered picture and all that is true of it.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        masks: bool [N, H, W], visible pixels, none empty, no two overlap.
        kinds: name of every object's class.
        distances: float [N], metres.
        road: bool [H, W]; the rest of the background is sky and buildings.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    kinds: list[str]
    distances: NDArray[np.float64]
    road: NDArray[np.bool_]


def draw_scene(rng: np.random.Generator, size: tuple[int, int], kinds: Sequence[str]) -> Scene:
    """Draw one object of each of ``kinds`` (names may repeat) at random distances, the nearest in front.

    Objects of which too little is seen are left out of the scene's masks but stay in the picture's background, so that
    every true object can be found. The same generator state gives the same scene.

    Args:
        rng: source of all randomness.
        size: (H, W).
        kinds: class names; shapes differ by class, colours at random.
    """
    height, width = size
    image, road = _background(rng, size)
    # Like real streets: more objects far away than near.
    distances = np.sort(NEAREST * (FARTHEST / NEAREST) ** rng.random(len(kinds)))[::-1]
    labels = np.zeros(size, dtype=np.int32)
    drawn = np.zeros(len(kinds), dtype=np.int64)
    for index, (kind, distance) in enumerate(zip(kinds, distances, strict=True)):
        mask = _silhouette(rng, size, kind, distance)
        drawn[index] = np.count_nonzero(mask)
        labels[mask] = index + 1
        _paint(rng, image, mask)
    masks = labels == np.arange(1, len(kinds) + 1)[:, None, None]
    seen = np.array([m.sum() for m in masks], dtype=np.int64).reshape(-1)
    kept = np.flatnonzero(seen > np.maximum(3, _SMALLEST_VISIBLE_SHARE * drawn))
    noise = rng.normal(0, 4, (height, width, 3))
    image = np.clip(image.astype(np.float64) + noise, 0, 255).astype(np.uint8)
    return Scene(image, masks[kept].reshape(-1, *size), [kinds[int(i)] for i in kept], distances[kept].copy(), road)


def _background(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    height, width = size
    horizon = int(_HORIZON * height)
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[:horizon] = rng.integers(150, 230, 3)
    image[horizon:] = rng.integers(70, 110, 3)
    for _ in range(6):  # buildings
        left = int(rng.integers(0, width))
        top = int(rng.integers(0, max(horizon, 1)))
        right = min(width, left + int(rng.integers(1, max(width // 4, 2))))
        image[top:horizon, left:right] = rng.integers(60, 150, 3)
    road = np.zeros(size, dtype=bool)
    road[horizon:] = True
    return image, road


def _silhouette(rng: np.random.Generator, size: tuple[int, int], kind: str, distance: float) -> NDArray[np.bool_]:
    """Pixels [H, W] of an object that stands on the road ``distance`` metres away, at least one."""
    height, width = size
    tall = max(4.0, _NEAREST_HEIGHT * height * NEAREST / distance * rng.uniform(0.8, 1.2))
    wide = max(3.0, tall * _ASPECTS.get(kind, _OTHER_ASPECT))
    # The foot of an object lies the lower the nearer it is.
    foot = height * (_HORIZON + (1 - _HORIZON) * min(1.0, NEAREST / distance) * 0.95) + tall * 0.1
    x = rng.uniform(0.05, 0.95) * width
    y = min(foot - tall / 2, height - 1.0)
    mask = np.zeros(size, dtype=np.uint8)
    if kind in ("person", "rider"):
        head = max(1, round(tall * 0.14))
        cv2.ellipse(mask, (round(x), round(y + tall * 0.1)), (round(wide / 2), round(tall * 0.4)), 0, 0, 360, 1, -1)
        cv2.circle(mask, (round(x), round(y - tall * 0.36)), head, 1, -1)
    else:
        top_left = (round(x - wide / 2), round(y - tall * 0.1))
        cv2.rectangle(mask, top_left, (round(x + wide / 2), round(y + tall * 0.35)), 1, -1)
        cv2.ellipse(mask, (round(x), round(y)), (round(wide * 0.35), round(tall * 0.42)), 0, 0, 360, 1, -1)
        for side in (-0.3, 0.3):
            center = (round(x + side * wide), round(y + tall * 0.36))
            cv2.circle(mask, center, max(1, round(tall * 0.13)), 1, -1)
    mask[min(height - 1, max(0, round(y))), min(width - 1, round(x))] = 1
    return mask.astype(bool)


def _paint(rng: np.random.Generator, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Fill ``mask`` [H, W] of ``image`` [H, W, 3] with a colour that darkens downwards, in place."""
    color = rng.integers(30, 250, 3)
    rows, columns = np.nonzero(mask)
    shade = 1 - 0.4 * (rows - rows.min()) / max(1, np.ptp(rows))
    image[rows, columns] = (color * shade[:, None]).astype(np.uint8)
