"""Warps move image, masks and points alike, and take away what hardly stays in the image."""

import numpy as np
import pytest
from detectron2.data import transforms as T

from rec_attend_d2.data.instances import transform_mask
from rec_attend_d2.data.warps import WarpTransform, elastic_displacement

SIZE = (60, 90)


@pytest.fixture
def mask() -> np.ndarray:
    """A mask without any symmetry."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[20:42, 30:46] = 1
    mask[36:42, 46:62] = 1
    return mask


@pytest.fixture
def displacement() -> np.ndarray:
    np.random.seed(2)
    return elastic_displacement(SIZE, 2.0)


def _picture(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None] * 254, 3, axis=2)


def _disc(center: tuple[float, float], radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return (np.hypot(x - center[0], y - center[1]) < radius).astype(np.uint8)


def _center(mask: np.ndarray) -> np.ndarray:
    """(x, y) of the centroid."""
    return np.argwhere(mask).mean(axis=0)[::-1] + 0.5


def test_identity_changes_nothing(mask):
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    for warp in (WarpTransform(SIZE), WarpTransform(SIZE, displacement=np.zeros((*SIZE, 2), np.float32))):
        np.testing.assert_array_equal(warp.apply_image(image), image)
        np.testing.assert_array_equal(warp.apply_segmentation(mask), mask)
        np.testing.assert_allclose(warp.apply_coords(np.array([[3.0, 7.5]])), [[3, 7.5]])


def test_quarter_turn_and_whole_shift_are_exact(mask):
    square = mask[:, 10:70]
    turned = WarpTransform((60, 60), angle=90).apply_segmentation(square)
    np.testing.assert_array_equal(turned, np.rot90(square, -1))  # from the x axis to the y axis, which points down
    shifted = WarpTransform(SIZE, shift=(5, -3)).apply_segmentation(mask)
    np.testing.assert_array_equal(shifted, np.roll(mask, (-3, 5), axis=(0, 1)))


def test_scale_and_shift_are_about_the_centre():
    warped = WarpTransform(SIZE, scale=1.5, shift=(-4, 6)).apply_segmentation(_disc((49, 32), 10))
    np.testing.assert_allclose(_center(warped), [45 - 4 + 1.5 * 4, 30 + 6 + 1.5 * 2], atol=0.05)
    np.testing.assert_allclose(warped.sum(), np.pi * 15**2, rtol=0.02)


@pytest.mark.parametrize("bend", [False, True])
@pytest.mark.parametrize(("angle", "scale"), [(0, 0.8), (35, 1.0), (-120, 1.25)])
def test_image_mask_and_points_move_together(mask, displacement, bend, angle, scale):
    warp = WarpTransform(SIZE, angle=angle, scale=scale, shift=(3, -2), displacement=displacement if bend else None)
    moved = warp.apply_segmentation(mask)
    assert moved.dtype == np.uint8 and 0.5 * scale**2 * mask.sum() < moved.sum() < 1.5 * scale**2 * mask.sum()
    for picture in (_picture(mask), _picture(mask)[..., :1], mask * np.uint8(254), _picture(mask).astype(np.float32)):
        image = warp.apply_image(picture)
        assert image.shape == picture.shape and image.dtype == picture.dtype
        seen = image if image.ndim == 2 else image[..., 0]
        # Only rounding may tell them apart.
        assert ((seen >= 127) != moved).sum() <= 1
    for point in (_center(mask), np.array([32.0, 22.0])):
        moved_point = warp.apply_coords(point[None])[0]
        seen_there = _center(warp.apply_segmentation(_disc(tuple(point), 4)))
        np.testing.assert_allclose(moved_point, seen_there, atol=0.3)


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.5])
def test_masks_are_found_wherever_they_are(displacement, scale):
    """A small part of the image is warped for a small mask; it has to hold all of the mask."""
    warp = WarpTransform(SIZE, angle=25, scale=scale, displacement=displacement)
    for center in [(4, 4), (45, 30), (86, 20), (30, 57)]:
        small = _disc(center, 3.5)
        warped = warp.apply_segmentation(small)
        # Pieces that are too small to count as rest of the object are dropped.
        if warped.any():
            assert ((warp.apply_image(small * 254) >= 127) != warped).sum() == 0
        else:
            assert (warp.apply_image(small * 254) >= 127).sum() < 0.2 * scale**2 * small.sum()


def test_what_enters_is_background():
    image = np.full((*SIZE, 3), (40, 50, 60), dtype=np.uint8)
    image[25:35, 40:50] = 220
    image[20:50, 10:80] = 0  # darker than the background
    image[0, 20:40] = 220  # at the border
    moved = WarpTransform(SIZE, scale=0.5).apply_image(image)
    assert (moved[:10] == (40, 50, 60)).all() and (moved[:, -15:] == (40, 50, 60)).all()
    gray = image[..., 0]
    assert (WarpTransform(SIZE, scale=0.5).apply_image(gray)[:10] == 40).all()
    assert WarpTransform((60, 80), scale=0.5).apply_segmentation(np.ones((60, 80), np.uint8)).sum() == 30 * 40


def test_masks_without_a_fifth_of_their_area_disappear():
    wide = np.zeros(SIZE, dtype=np.uint8)
    wide[20:40, 0:20] = 1
    for scale in (1.0, 1.5):
        edge = 45 + scale * (0 - 45)  # where the left end of the object lies before the shift
        for share, left in ((0.1, 0), (0.15, 0), (0.25, 0.25), (1.0, 1.0)):
            shift = -edge - scale * 20 * (1 - share)
            warp = WarpTransform(SIZE, scale=scale, shift=(shift, 0))
            area = scale**2 * wide.sum()
            assert warp.apply_segmentation(wide).sum() == pytest.approx(left * area, abs=0.04 * area)
            assert transform_mask(wide.astype(bool), T.TransformList([warp])).any() == (left > 0)
    beyond = WarpTransform(SIZE, shift=(-200, 0))
    assert not transform_mask(wide.astype(bool), T.TransformList([beyond])).any()
    assert not beyond.apply_segmentation(np.zeros(SIZE, np.uint8)).any()


def test_single_pixels_stay(displacement):
    """A pixel that no pixel of the warped image half covers keeps the one it moves to."""
    warp = WarpTransform(SIZE, angle=45, scale=0.6, displacement=displacement)
    emptied = 0
    for y, x in [(20, 30), (31, 44), (33, 51), (40, 60)]:
        mask = np.zeros(SIZE, dtype=bool)
        mask[y, x] = True
        emptied += not warp.apply_segmentation(mask.astype(np.uint8)).any()
        moved = transform_mask(mask, T.TransformList([warp]))
        assert moved.sum() == 1
        seen = warp.apply_image(mask * np.float32(255))
        assert seen[moved] > 0.5 * seen.max() > 0
    assert emptied > 0


def test_single_pixel_image():
    for displacement in (None, elastic_displacement((1, 1), 0.1)):
        warp = WarpTransform((1, 1), angle=0, scale=1.1, displacement=displacement)
        assert warp.apply_image(np.full((1, 1, 3), 9, np.uint8)).tolist() == [[[9, 9, 9]]]
        assert warp.apply_segmentation(np.ones((1, 1), np.uint8)).tolist() == [[1]]


def test_no_points(displacement):
    assert WarpTransform(SIZE, angle=3, displacement=displacement).apply_coords(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize(("std", "sigma"), [(1.5, 10.0), (6.0, 24.0)])
def test_elastic_displacement_has_its_deviation_everywhere_and_is_smooth(std, sigma):
    np.random.seed(0)
    fields = np.stack([elastic_displacement((100, 71), std) for _ in range(200)])
    assert fields.shape == (200, 100, 71, 2) and fields.dtype == np.float32
    assert abs(fields.mean()) < 0.1 * std
    deviation = fields.std(axis=0)
    assert deviation.mean() == pytest.approx(std, rel=0.05)
    assert 0.7 * std < deviation.min() and deviation.max() < 1.3 * std  # the border too
    # White noise after a Gaussian filter has the slope std / (sqrt(2) sigma).
    assert np.diff(fields, axis=2).std() == pytest.approx(std / (np.sqrt(2) * sigma), rel=0.1)
    assert np.diff(fields, axis=1).min() > -1 and np.diff(fields, axis=2).min() > -1  # nothing folds
    assert abs(np.corrcoef(fields[..., 0].ravel(), fields[..., 1].ravel())[0, 1]) < 0.15
