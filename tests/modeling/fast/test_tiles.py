"""Tiled = whole, with the published weights on drawn discs."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from numpy.typing import NDArray

from rec_attend_d2 import Predictor
from rec_attend_d2.modeling.fast import tiles
from rec_attend_d2.modeling.fast.tiles import tiles_of
from rec_attend_d2.structures import intersections

WEIGHTS = Path(__file__).parents[3] / "weights" / "nuclei.yaml"
OVERLAP = 128


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.set_num_threads(1)
    return Predictor(WEIGHTS)


def draw(size: tuple[int, int], discs: list[tuple[float, float, float]]) -> NDArray[np.uint8]:
    """Discs (y, x, radius) as bright as nuclei on a dark ground with noise."""
    generator = np.random.default_rng(0)
    picture = np.zeros(size, np.float32)
    for y, x, radius in discs:
        cv2.circle(picture, (round(x), round(y)), round(radius), float(generator.uniform(80, 160)), -1)
    picture = cv2.GaussianBlur(picture, (0, 0), 1) + 20 + generator.normal(0, 3, size)
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def find(predictor: Predictor, image: NDArray, tile: int) -> Instances:
    predictor.model.tile = tile
    try:
        return predictor(image).instances
    finally:
        predictor.model.tile = 0


def share_found(first: Instances, second: Instances) -> float:
    """Share of the first ones' masks that the second ones have too, at an IoU of 0.9."""
    overlap = intersections(first.pred_masks, second.pred_masks).toarray()
    areas = first.pred_masks.areas()[:, None] + second.pred_masks.areas()
    return float(((overlap / (areas - overlap)).max(axis=1) >= 0.9).mean())


@pytest.mark.parametrize("size", [(1, 5000), (300, 256), (1000, 1022), (2049, 3000)])
def test_tiles_cover_a_picture_and_overlap(size):
    covered = np.zeros(size, np.uint8)
    for tile in tiles_of(size, 512, OVERLAP):
        assert max(tile.size) <= 512 and tile.top % 32 == 0 and tile.left % 32 == 0
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert covered.min() >= 1
    starts = sorted({tile.left for tile in tiles_of(size, 512, OVERLAP)})
    assert all(after - before <= 512 - OVERLAP for before, after in zip(starts, starts[1:], strict=False))


def test_tiles_find_what_the_whole_picture_shows(predictor):
    """Objects lie on every inner border and corner of the tiles, two tiles are empty, and some objects touch."""
    discs = [(y, x, 7.0) for y in range(9, 640, 31) for x in range(9, 700, 29) if not (y < 250 and x > 430)]
    discs += [(y, x + 13, 6.0) for y, x, _ in discs[::7]]
    image = draw((640, 700), discs)
    whole, tiled = find(predictor, image, 0), find(predictor, image, 256)
    assert len(tiled) == len(whole)
    assert abs(len(whole) - len(discs)) <= 0.01 * len(discs)
    assert share_found(whole, tiled) >= 0.99


def test_objects_larger_than_the_overlap(predictor, monkeypatch):
    monkeypatch.setattr(tiles, "_SMALLEST_OVERLAP", 32)
    monkeypatch.setattr(tiles, "_OVERLAP_WIDTHS", 2)
    generator = np.random.default_rng(1)
    discs = [(y, x, 20.0) for y in range(30, 640, 56) for x in range(30, 700, 56) if generator.random() < 0.8]
    image = draw((640, 700), discs)
    whole, tiled = find(predictor, image, 0), find(predictor, image, 160)
    assert len(tiled) == len(whole) == len(discs)
    assert share_found(whole, tiled) >= 0.99


def test_memory_holds_what_other_tiles_claimed(predictor):
    """The middle column of a picture is claimed by the tile left of it and found by no other."""
    image = draw((256, 448), [(y, 224, 8.0) for y in range(20, 250, 30)])
    tiled = find(predictor, image, 256)
    assert len(tiled) == len(range(20, 250, 30))


def test_progress_goes_over_the_tiles(predictor):
    seen: list[int] = []

    def progress(tiles):
        seen.append(len(tiles))
        return tiles

    predictor.model.progress = progress
    try:
        assert len(find(predictor, draw((300, 500), [(150, 250, 8.0)]), 256)) == 1
    finally:
        predictor.model.progress = iter
    assert seen == [len(tiles_of((300, 500), 256, OVERLAP))]
