"""Masks and points go where the image goes."""

import numpy as np
import pytest
from detectron2.data import transforms as T

from rec_attend_d2.data.augmentation import (
    RandomHorizontalFlip,
    RandomShift,
    RandomTranspose,
    RandomVerticalFlip,
    ResizeToSize,
    ResizeToSizeTransform,
    ShiftTransform,
    TransposeTransform,
    build_augmentations,
    build_resize,
    resize_array,
)


@pytest.fixture
def mask() -> np.ndarray:
    """A mask without any symmetry."""
    mask = np.zeros((18, 26), dtype=np.uint8)
    mask[2:9, 3:8] = 1
    mask[9:15, 3:5] = 1
    mask[4, 8:20] = 1
    return mask


def _picture(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None] * 255, 3, axis=2)


TRANSFORMS = {
    "horizontal": (T.HFlipTransform(26), lambda mask: mask[:, ::-1]),
    "vertical": (T.VFlipTransform(18), lambda mask: mask[::-1]),
    "transpose": (TransposeTransform(), lambda mask: mask.T),
    "shift": (ShiftTransform(3, -2), lambda mask: np.pad(mask, ((3, 0), (0, 2)))[:18, 2:]),
    "shift_up": (ShiftTransform(-3, 5), lambda mask: np.pad(mask, ((0, 3), (5, 0)))[3:, :26]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_image_mask_and_points_move_together(mask, name):
    transform, expected = TRANSFORMS[name]
    moved = transform.apply_segmentation(mask)
    np.testing.assert_array_equal(moved, expected(mask))
    np.testing.assert_array_equal(transform.apply_image(_picture(mask)), _picture(moved))
    inside = np.argwhere(mask)[:, ::-1] + 0.5
    points = np.floor(transform.apply_coords(inside.copy())).astype(int)
    points = points[((points >= 0) & (points < moved.shape[::-1])).all(axis=1)]
    assert len(points) == moved.sum()
    assert moved[points[:, 1], points[:, 0]].all()


def test_shift_beyond_the_image_leaves_nothing(mask):
    assert ShiftTransform(18, 0).apply_image(mask).sum() == 0
    assert ShiftTransform(0, -40).apply_image(mask).sum() == 0


@pytest.mark.parametrize(("augmentation", "change"), [(RandomHorizontalFlip, 1), (RandomVerticalFlip, 0)])
def test_flips_happen_half_the_time(cfg, mask, augmentation, change):
    np.random.seed(0)
    flip = augmentation(cfg)
    flipped = 0
    for _ in range(200):
        moved = flip.get_transform(mask).apply_image(mask)
        if not np.array_equal(moved, mask):
            np.testing.assert_array_equal(moved, np.flip(mask, change))
            flipped += 1
    assert 70 < flipped < 130


def test_transpose_happens_half_the_time(cfg, mask):
    np.random.seed(0)
    shapes = [RandomTranspose(cfg).get_transform(mask).apply_image(mask).shape for _ in range(200)]
    assert set(shapes) == {(18, 26), (26, 18)}
    assert 70 < shapes.count((26, 18)) < 130


def test_shift_covers_its_range(cfg, mask):
    np.random.seed(0)
    cfg.INPUT.MAX_SHIFT = 3
    shift = RandomShift(cfg)
    drawn = [shift.get_transform(mask) for _ in range(400)]
    assert {t.down for t in drawn} == {t.right for t in drawn} == set(range(-3, 4))


def test_same_seed_same_augmentation(cfg, mask):
    results = []
    for _ in range(2):
        np.random.seed(5)
        aug_input = T.AugInput(_picture(mask))
        T.AugmentationList(build_augmentations(cfg))(aug_input)
        results.append(aug_input.image)
    np.testing.assert_array_equal(*results)


def test_order_is_flips_resize_shift(cfg):
    cfg.INPUT.AUGMENTATIONS = ["RandomShift", "RandomTranspose", "RandomVerticalFlip"]
    types = [type(augmentation) for augmentation in build_augmentations(cfg)]
    assert types == [RandomTranspose, RandomVerticalFlip, ResizeToSize, RandomShift]


def test_transposed_images_have_the_network_size(cfg, mask):
    np.random.seed(1)
    augmentations = T.AugmentationList(build_augmentations(cfg))
    for _ in range(20):
        aug_input = T.AugInput(_picture(mask))
        augmentations(aug_input)
        assert aug_input.image.shape == (32, 48, 3)


def test_resized_image_and_mask_agree(mask):
    big = np.kron(mask, np.ones((4, 4), dtype=np.uint8))
    transform = ResizeToSizeTransform(big.shape, mask.shape)
    np.testing.assert_array_equal(transform.apply_segmentation(big), mask)
    np.testing.assert_array_equal(transform.apply_image(_picture(big)), _picture(mask))
    np.testing.assert_allclose(transform.apply_coords(np.array([[10.0, 6.0]])), [[2.5, 1.5]])


def test_downsized_mask_owns_pixels_it_half_covers():
    mask = np.zeros((12, 12), dtype=np.uint8)
    mask[0:6, 0:3] = 1  # half of one 6 x 6 pixel
    mask[6:12, 6:8] = 1  # a third of another
    np.testing.assert_array_equal(ResizeToSizeTransform((12, 12), (2, 2)).apply_segmentation(mask), [[1, 0], [0, 0]])


@pytest.mark.parametrize(
    ("old", "new"), [((7, 13), (32, 48)), ((100, 9), (32, 48)), ((31, 47), (30, 48)), ((1, 1), (3, 5))]
)
def test_odd_sizes_resize_and_keep_constants(old, new):
    resized = resize_array(np.full((*old, 3), 77, dtype=np.uint8), new)
    assert resized.shape == (*new, 3) and (resized == 77).all()


def test_shrinking_averages():
    checkerboard = np.indices((40, 40)).sum(axis=0).astype(np.float32) % 2
    np.testing.assert_allclose(resize_array(checkerboard, (10, 10)), 0.5)


def test_unknown_augmentation_lists_the_known(cfg):
    cfg.INPUT.AUGMENTATIONS = ["RandomFlop"]
    with pytest.raises(ValueError, match=r"INPUT\.AUGMENTATIONS names 'RandomFlop'.*RandomHorizontalFlip.*RandomShift"):
        build_augmentations(cfg)


@pytest.mark.parametrize("shift", [-1, 32])
def test_impossible_shift(cfg, shift):
    cfg.INPUT.MAX_SHIFT = shift
    with pytest.raises(ValueError, match=r"INPUT\.MAX_SHIFT"):
        build_augmentations(cfg)


@pytest.mark.parametrize("size", [[32], [0, 32]])
def test_impossible_size(cfg, size):
    cfg.INPUT.IMAGE_SIZE = size
    with pytest.raises(ValueError, match=r"INPUT\.IMAGE_SIZE"):
        build_resize(cfg)
