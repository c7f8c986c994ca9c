"""Rendered scenes: deterministic, and true to their picture."""

import numpy as np
import pytest

from miniature.scenes import FARTHEST, NEAREST, draw_scene

KINDS = ["car", "person", "rider", "bicycle", "train", "car"]


def test_the_same_seed_gives_the_same_scene():
    first, second = (draw_scene(np.random.default_rng(3), (60, 90), KINDS) for _ in range(2))
    assert np.array_equal(first.image, second.image) and np.array_equal(first.masks, second.masks)
    assert first.kinds == second.kinds
    other = draw_scene(np.random.default_rng(4), (60, 90), KINDS)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [(60, 90), (128, 64), (33, 57)])
def test_objects_are_visible_and_apart(size: tuple[int, int]):
    counts = []
    for seed in range(20):
        scene = draw_scene(np.random.default_rng(seed), size, KINDS)
        counts.append(len(scene.masks))
        assert scene.image.shape == (*size, 3) and scene.image.dtype == np.uint8
        assert scene.masks.shape[1:] == size and len(scene.kinds) == len(scene.masks) == len(scene.distances)
        assert scene.masks.sum(0).max(initial=0) <= 1
        assert all(mask.sum() > 3 for mask in scene.masks)
        assert ((scene.distances >= NEAREST) & (scene.distances <= FARTHEST)).all()
        assert (np.diff(scene.distances) <= 0).all()
        assert scene.road[-1].all() and not scene.road[0].any()
    assert max(counts) == 6 and np.mean(counts) > 3


def test_near_objects_are_larger():
    near, far = [], []
    for seed in range(60):
        scene = draw_scene(np.random.default_rng(seed), (128, 256), ["person"])
        for mask, distance in zip(scene.masks, scene.distances, strict=True):
            (near if distance < 15 else far).append(mask.sum())
    assert np.mean(near) > 4 * np.mean(far)


def test_a_scene_without_objects():
    scene = draw_scene(np.random.default_rng(0), (40, 60), [])
    assert scene.masks.shape == (0, 40, 60) and scene.kinds == []
