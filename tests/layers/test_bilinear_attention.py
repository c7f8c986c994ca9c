"""Bilinear sampling and pasting, against scipy, torch's grid_sample and numpy's interp."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torch import Tensor
from torch.nn import functional as F

from rec_attend_d2.layers.bilinear_attention import pasting_filters, patch_points, sampling_filters
from rec_attend_d2.layers.gaussian_attention import extract_patch, paste_patch

HEIGHT, WIDTH = 20, 28
PATCH_HEIGHT, PATCH_WIDTH = 12, 16
# (centre y, x, size y, x) of boxes smaller than the patch: inside the image, over its edges, outside.
SMALL = [(9.0, 13.5, 8.0, 11.0), (9.3, 12.2, 4.7, 9.1), (1.2, 26.0, 9.0, 14.9), (-30.0, 14.0, 6.0, 6.0)]
# Boxes inside the image that cover a multiple of the patch's pixels, and two that do not.
MULTIPLES = [(30.0, 41.5, 35.0, 31.0), (28.3, 40.9, 23.0, 47.0)]
LARGE = [*MULTIPLES, (30.2, 39.7, 17.0, 23.0), (29.1, 40.0, 40.3, 50.9)]
# What LARGE lies in.
LARGE_HEIGHT, LARGE_WIDTH = 60, 80


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def cell_centers(center: float, size: float, cells: int) -> np.ndarray:
    """Centres of ``cells`` equal parts of the pixels of a box, whose first and last pixel count in full."""
    edges = np.linspace(center - size / 2 - 0.5, center + size / 2 + 0.5, cells + 1)
    return (edges[:-1] + edges[1:]) / 2


def both_axes(
    make, box: tuple[float, ...], height: int = LARGE_HEIGHT, width: int = LARGE_WIDTH
) -> tuple[Tensor, Tensor]:
    y, x, size_y, size_x = box
    return (
        make(column(y), column(size_y), height, PATCH_HEIGHT),
        make(column(x), column(size_x), width, PATCH_WIDTH),
    )


def random_image(channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, channels, height, width, dtype=torch.float64, generator=generator)


def test_patch_points_are_the_centres_of_equal_parts_of_the_box():
    points = patch_points(column(9.3, 4.0), column(7.5, 11.0), 6)
    np.testing.assert_allclose(points[0].numpy(), cell_centers(9.3, 7.5, 6), rtol=1e-12)
    np.testing.assert_allclose(points[1].numpy(), [-1.0, 1.0, 3.0, 5.0, 7.0, 9.0], rtol=1e-12)


def test_a_box_of_as_many_pixels_as_the_patch_is_copied():
    # First pixel 3, last pixel 14.
    filters = sampling_filters(column(8.5), column(11.0), HEIGHT, 12)
    np.testing.assert_array_equal(filters[0].numpy(), np.eye(HEIGHT)[:, 3:15])
    np.testing.assert_array_equal(pasting_filters(column(8.5), column(11.0), HEIGHT, 12).numpy(), filters.numpy())


@pytest.mark.parametrize("box", SMALL)
def test_boxes_smaller_than_the_patch_are_interpolated(box: tuple[float, ...]):
    image = random_image(2, HEIGHT, WIDTH)
    patch = extract_patch(image, *both_axes(sampling_filters, box, HEIGHT, WIDTH))[0]

    ys, xs = cell_centers(box[0], box[2], PATCH_HEIGHT), cell_centers(box[1], box[3], PATCH_WIDTH)
    places = np.meshgrid(ys, xs, indexing="ij")
    for channel in range(2):
        expected = scipy.ndimage.map_coordinates(image[0, channel].numpy(), places, order=1, mode="grid-constant")
        np.testing.assert_allclose(patch[channel].numpy(), expected, atol=1e-12)
    # grid_sample wants (x, y) from -1 to 1, which are the outer edges of the first and the last pixel.
    grid = np.stack([(places[1] + 0.5) / WIDTH * 2 - 1, (places[0] + 0.5) / HEIGHT * 2 - 1], axis=-1)
    sampled = F.grid_sample(image, torch.from_numpy(grid)[None], mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(patch, sampled, rtol=0, atol=1e-12)


@pytest.mark.parametrize("box", LARGE)
def test_boxes_larger_than_the_patch_are_averaged_with_a_triangle(box: tuple[float, ...]):
    for axis, (length, patch_length) in enumerate(((LARGE_HEIGHT, PATCH_HEIGHT), (LARGE_WIDTH, PATCH_WIDTH))):
        center, size = box[axis], box[2 + axis]
        spacing = (size + 1) / patch_length
        points = cell_centers(center, size, patch_length)
        density = scipy.stats.triang(0.5, loc=points[None] - spacing, scale=2 * spacing)
        weights = sampling_filters(column(center), column(size), length, patch_length)[0]
        total = density.pdf(np.arange(-300, 300)[:, None]).sum(0)
        np.testing.assert_allclose(weights.numpy(), density.pdf(np.arange(length)[:, None]) / total, atol=1e-12)


@pytest.mark.parametrize("box", LARGE)
def test_a_constant_stays_a_constant(box: tuple[float, ...]):
    image = torch.full((1, 1, LARGE_HEIGHT, LARGE_WIDTH), 0.7, dtype=torch.float64)
    patch = extract_patch(image, *both_axes(sampling_filters, box))
    np.testing.assert_allclose(patch.numpy(), 0.7, rtol=1e-12)


@pytest.mark.parametrize("box", MULTIPLES)
def test_a_ramp_shows_where_the_patch_points_lie(box: tuple[float, ...]):
    for axis, (length, patch_length) in enumerate(((LARGE_HEIGHT, PATCH_HEIGHT), (LARGE_WIDTH, PATCH_WIDTH))):
        filters = sampling_filters(column(box[axis]), column(box[2 + axis]), length, patch_length)[0]
        seen = filters.T @ torch.arange(length, dtype=torch.float64)
        np.testing.assert_allclose(seen.numpy(), cell_centers(box[axis], box[2 + axis], patch_length), rtol=1e-12)


@pytest.mark.parametrize("box", LARGE)
def test_no_pixel_of_a_large_box_counts_much_more_than_another(box: tuple[float, ...]):
    # Something between the outermost patch points has the same sum in patch and image, up to the size of a patch pixel;
    # exactly where that is a whole number of pixels.
    y, x, size_y, size_x = box
    image = random_image(1, LARGE_HEIGHT, LARGE_WIDTH)
    spacings = (size_y + 1) / PATCH_HEIGHT, (size_x + 1) / PATCH_WIDTH
    rows, columns = torch.arange(LARGE_HEIGHT), torch.arange(LARGE_WIDTH)
    image[:, :, (rows - y).abs() > (size_y + 1 - spacings[0]) / 2] = 0
    image[:, :, :, (columns - x).abs() > (size_x + 1 - spacings[1]) / 2] = 0
    patch = extract_patch(image, *both_axes(sampling_filters, box))
    assert patch.sum().item() * spacings[0] * spacings[1] == pytest.approx(
        image.sum().item(), rel=1e-12 if box in MULTIPLES else 0.01
    )


@pytest.mark.parametrize("box", [*SMALL, *LARGE])
def test_pasting_interpolates_the_patch_inside_the_box_and_nothing_outside(box: tuple[float, ...]):
    patch = torch.rand(1, PATCH_HEIGHT, PATCH_WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pasted = paste_patch(patch, *both_axes(pasting_filters, box))[0].numpy()

    # numpy's interp goes on with the first and last value beyond the first and last point.
    rows, columns = np.arange(LARGE_HEIGHT), np.arange(LARGE_WIDTH)
    ys, xs = cell_centers(box[0], box[2], PATCH_HEIGHT), cell_centers(box[1], box[3], PATCH_WIDTH)
    along_x = np.stack([np.interp(columns, xs, row) for row in patch[0].numpy()])
    expected = np.stack([np.interp(rows, ys, along_x[:, j]) for j in range(LARGE_WIDTH)], axis=1)
    expected[(rows < box[0] - box[2] / 2 - 0.5) | (rows > box[0] + box[2] / 2 + 0.5)] = 0
    expected[:, (columns < box[1] - box[3] / 2 - 0.5) | (columns > box[1] + box[3] / 2 + 0.5)] = 0
    np.testing.assert_allclose(pasted, expected, atol=1e-12)


def test_a_pasted_patch_of_ones_is_the_box_and_sharp():
    # First and last pixel: 20 and 40, 30 and 59.
    ones = torch.ones(1, PATCH_HEIGHT, PATCH_WIDTH, dtype=torch.float64)
    pasted = paste_patch(ones, *both_axes(pasting_filters, (30.0, 44.5, 20.0, 29.0)))[0]
    expected = np.zeros((LARGE_HEIGHT, LARGE_WIDTH))
    expected[20:41, 30:60] = 1
    np.testing.assert_allclose(pasted.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("box", [(9.3, 12.2, 8.7, 13.1), (9.0, 13.5, 11.0, 15.0)])
def test_pasting_undoes_sampling_of_a_small_box(box: tuple[float, ...]):
    rows, columns = torch.meshgrid(column(*range(HEIGHT)), column(*range(WIDTH)), indexing="ij")
    image = 0.3 + 0.1 * rows - 0.2 * columns + 0.05 * rows * columns
    patch = extract_patch(image[None, None], *both_axes(sampling_filters, box, HEIGHT, WIDTH))[:, 0]
    pasted = paste_patch(patch, *both_axes(pasting_filters, box, HEIGHT, WIDTH))[0]
    # Exact between the outermost patch points.
    ys, xs = cell_centers(box[0], box[2], PATCH_HEIGHT), cell_centers(box[1], box[3], PATCH_WIDTH)
    between = (rows >= ys[0]) & (rows <= ys[-1]) & (columns >= xs[0]) & (columns <= xs[-1])
    assert between.sum() > 60
    torch.testing.assert_close(pasted[between], image[between], rtol=1e-10, atol=0)


@pytest.mark.parametrize("box", MULTIPLES)
def test_sampling_undoes_pasting_of_a_smooth_patch_in_a_large_box(box: tuple[float, ...]):
    ys = torch.sin(torch.linspace(0, 1.5, PATCH_HEIGHT, dtype=torch.float64))
    xs = torch.cos(torch.linspace(0, 1.5, PATCH_WIDTH, dtype=torch.float64))
    patch = (ys[:, None] * xs)[None]
    pasted = paste_patch(patch, *both_axes(pasting_filters, box))
    sampled = extract_patch(pasted[:, None], *both_axes(sampling_filters, box))[:, 0]
    # The outermost points also see what is outside the box.
    inner = (slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(sampled[inner], patch[inner], rtol=0, atol=0.01)


def test_boxes_of_a_batch_do_not_see_each_other():
    center, size = column(9.3, 4.0, 15.0), column(7.5, 12.0, 30.0)
    for make in (sampling_filters, pasting_filters):
        together = make(center, size, HEIGHT, 6)
        for index in range(3):
            alone = make(center[index : index + 1], size[index : index + 1], HEIGHT, 6)
            assert torch.equal(together[index : index + 1], alone)


def test_a_box_without_any_size_is_pasted_without_a_nan():
    weights = pasting_filters(column(5.0), column(-1.0), HEIGHT, 6)
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize("make", [sampling_filters, pasting_filters])
@pytest.mark.parametrize("size", [3.1, 14.3], ids=["smaller than the patch", "larger"])
def test_gradients_of_the_filters(make, size: float):
    center, sizes = column(9.37, 4.12).requires_grad_(), column(size, size + 0.6).requires_grad_()
    assert torch.autograd.gradcheck(lambda c, s: make(c, s, HEIGHT, 6), [center, sizes])
