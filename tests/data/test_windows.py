"""Windows show what lies there: picture and labels alike, whatever the scale and the angle."""

import math

import numpy as np
import pytest

from rec_attend_d2.data.warps import elastic_displacement
from rec_attend_d2.data.windows import CLAIMED, CentralWindow, RandomWindow, WindowTransform

SIZE = (120, 160)
# (x, y) and radius, apart from each other.
DISCS = [((40.3, 35.6), 14.0), ((100.0, 50.0), 20.5), ((70.7, 95.2), 16.2)]


def square(center, scale: float, side: int, angle: float = 0.0, displacement=None) -> WindowTransform:
    """A window that is scaled alike along both axes."""
    return WindowTransform(center, (scale, scale), (side, side), angle, displacement)


def disc_labels() -> np.ndarray:
    """Label image, int32 [H, W], of the discs."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    labels = np.zeros(SIZE, np.int32)
    for number, ((center_x, center_y), radius) in enumerate(DISCS, start=1):
        labels[(x - center_x) ** 2 + (y - center_y) ** 2 <= radius**2] = number
    return labels


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def sliced(array: np.ndarray, top: int, left: int, side: int, fill: float) -> np.ndarray:
    """The window by slicing alone."""
    margins = [(side, side), (side, side)] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, margins, constant_values=fill)[top + side : top + 2 * side, left + side : left + 2 * side]


@pytest.mark.parametrize(("top", "left"), [(17, 33), (-9, 20), (100, 140), (60, -31), (-5, -6)])
@pytest.mark.parametrize("displaced", [False, True])
def test_a_plain_window_is_a_slice_and_outside_is_black_and_claimed(pixels, top, left, displaced):
    side, zeros = 32, np.zeros((32, 32, 2), np.float32)
    window = square((left + side / 2, top + side / 2), 1.0, side, 0.0, zeros if displaced else None)
    np.testing.assert_array_equal(window.apply_image(pixels), sliced(pixels, top, left, side, 0))
    np.testing.assert_array_equal(window.apply_image(pixels[..., 0]), sliced(pixels[..., 0], top, left, side, 0))
    labels = disc_labels()
    np.testing.assert_array_equal(window.apply_segmentation(labels), sliced(labels, top, left, side, CLAIMED))
    np.testing.assert_allclose(window.apply_coords(np.array([[left + 3.0, top + 4.0]])), [[3, 4]])


@pytest.mark.parametrize("angle", [0.0, 30.0, 180.0])
@pytest.mark.parametrize("scale", [0.3, 0.7, 0.9, 1.0, 1.8])
def test_areas_and_centroids_follow_the_scale(scale, angle):
    window = square((80.0, 60.0), scale, 384, angle)
    labels = disc_labels()
    cut = window.apply_segmentation(labels)
    bright = window.apply_image((labels > 0).astype(np.uint8) * 240).astype(float) / 240
    places = window.apply_coords(np.array([center for center, _ in DISCS]))
    for number, (place, (_, radius)) in enumerate(zip(places, DISCS, strict=True), start=1):
        y, x = np.nonzero(cut == number)
        assert len(y) == pytest.approx(math.pi * (scale * radius) ** 2, rel=0.08)
        np.testing.assert_allclose((x.mean() + 0.5, y.mean() + 0.5), place, atol=0.5)
        # The picture of the object lies there too, all of it.
        near = np.hypot(*(np.mgrid[:384, :384] + 0.5 - place[::-1, None, None])) < scale * radius + 3
        y, x = np.mgrid[:384, :384] + 0.5
        total = bright[near].sum()
        assert total == pytest.approx(math.pi * (scale * radius) ** 2, rel=0.04)
        centroid = (bright * x)[near].sum() / total, (bright * y)[near].sum() / total
        np.testing.assert_allclose(centroid, place, atol=0.3)


@pytest.mark.parametrize("seed", range(4))
def test_a_bent_picture_and_its_labels_bend_alike(seed):
    np.random.seed(seed)
    bend = elastic_displacement((160, 160), 1.5)
    window = square((75.0, 62.0), [0.5, 0.9, 1.3, 2.0][seed], 160, 37.0 * seed, bend)
    labels = disc_labels()
    cut, image = window.apply_segmentation(labels), window.apply_image((labels > 0).astype(np.uint8) * 255)
    inside = cut > 0
    assert inside.sum() > 500
    # What differs is no more than a pixel at the outlines.
    padded = np.pad(inside, 1, mode="edge")
    around = np.stack([padded[y : y + 160, x : x + 160] for y in range(3) for x in range(3)])
    assert (image[around.all(0)] > 100).all() and (image[~around.any(0)] < 155).all()
    assert ((image > 127) != inside).sum() < 0.03 * inside.sum()


def test_a_displacement_is_where_pixels_look(pixels):
    moved = np.broadcast_to(np.array([6.0, -4.0], np.float32), (32, 32, 2))
    bent = square((60.0, 50.0), 2.0, 32, 0.0, moved)
    plain = square((63.0, 48.0), 2.0, 32)
    np.testing.assert_allclose(bent.apply_image(pixels).astype(int), plain.apply_image(pixels).astype(int), atol=2)
    labels = disc_labels()
    np.testing.assert_array_equal(bent.apply_segmentation(labels), plain.apply_segmentation(labels))


@pytest.mark.parametrize("center", [(1e4, 60.0), (80.0, -1e5), (-900.0, -900.0)])
def test_far_from_the_picture_there_is_nothing(pixels, center):
    for displacement in (None, np.ones((32, 32, 2), np.float32)):
        window = square(center, 0.5, 32, 20.0, displacement)
        assert not window.apply_image(pixels).any() and window.apply_image(pixels).shape == (32, 32, 3)
        assert (window.apply_segmentation(disc_labels()) == CLAIMED).all()


def test_shrinking_averages():
    stripes = np.zeros(SIZE, np.uint8)
    stripes[:, ::4] = 200
    window = square((80.0, 60.0), 0.25, 24).apply_image(stripes)
    np.testing.assert_allclose(window, 50, atol=4)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.7, 8.0, 20.0])
def test_a_window_inside_of_the_picture_has_no_dark_border(scale):
    white = np.full((400, 400), 255, np.uint8)
    for offset in np.linspace(0, 1, 9):
        window = square((200 + offset, 200 - offset), scale, 32)
        assert (window.apply_image(white) == 255).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.9])
def test_all_of_a_small_picture_stays_in_the_window(scale):
    np.random.seed(0)
    labels, corners = np.zeros((31, 25), np.int32), np.array([[0.0, 0.0], [25.0, 31.0]])
    places = set()
    for _ in range(50):
        window = RandomWindow(64, scale).get_transform(labels)
        placed = window.apply_coords(corners)
        assert placed.min() >= -1e-9 and placed.max() <= 64 + 1e-9
        places.add(tuple(placed[0].round(3)))
    assert len(places) == 50
    assert (window.apply_segmentation(labels) == 0).sum() == pytest.approx(31 * 25 * scale**2, rel=0.1)


def test_windows_of_a_large_picture_reach_its_borders_and_a_little_beyond():
    np.random.seed(0)
    labels = np.zeros((300, 200), np.int32)
    windows = [RandomWindow(64, 1.0).get_transform(labels) for _ in range(400)]
    starts = -np.array([window.apply_coords(np.zeros((1, 2)))[0] for window in windows])
    assert (starts.min(0) < -4).all() and (starts.min(0) >= -8).all()
    assert (starts.max(0) > (136 + 4, 236 + 4)).all() and (starts.max(0) <= (144, 244)).all()


def test_without_rotation_windows_are_never_scaled_turned_or_bent():
    np.random.seed(0)
    image = np.zeros((300, 200), np.uint8)
    scales = {RandomWindow(64, 0.7).get_transform(image).scale for _ in range(20)}
    assert scales == {(0.7, 0.7)}
    warped = {RandomWindow(64, 0.7, 45.0).get_transform(image).scale for _ in range(100)}
    assert 50 < len(warped) < 90 and (0.7, 0.7) in warped


def test_axes_may_have_scales_and_lengths_of_their_own(pixels):
    window = WindowTransform((80.0, 60.0), (0.5, 2.0), (50, 40))
    labels, image = window.apply_segmentation(disc_labels()), window.apply_image(pixels)
    assert labels.shape == (50, 40) and labels.dtype == np.int32 and image.shape == (50, 40, 3)
    corners = window.apply_coords(np.array([[40.0, 47.5], [120.0, 72.5]]))
    np.testing.assert_allclose(corners, [[0, 0], [40, 50]])
    # Each pixel is two columns and half a row of the picture.
    columns = (disc_labels()[47:73, 40:120:2], disc_labels()[47:73, 41:120:2])
    rows = np.arange(47.75, 72.5, 0.5).astype(int) - 47
    assert ((labels == columns[0][rows]) | (labels == columns[1][rows])).all()


def test_the_central_window_is_in_the_middle():
    labels = disc_labels()
    window = CentralWindow(64, 1.0).get_transform(labels)
    np.testing.assert_array_equal(window.apply_segmentation(labels), labels[28:92, 48:112])
