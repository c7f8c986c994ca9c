"""Gaussian filters, extracting and pasting, against scipy and numpy written out per image and channel."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from rec_attend_d2.layers.gaussian_attention import (
    extract_patch,
    gaussian_filters,
    paste_ones,
    paste_patch,
    soft_mask,
)

HEIGHT, WIDTH = 20, 28
PATCH_HEIGHT, PATCH_WIDTH = 6, 8


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def filters() -> tuple[Tensor, Tensor]:
    """Filters of two images with different boxes, in double precision."""
    filters_y = gaussian_filters(column(9.3, 4.0), column(7.5, 12.0), column(0.3, -0.2), HEIGHT, PATCH_HEIGHT)
    filters_x = gaussian_filters(column(13.0, 20.2), column(11.0, 5.0), column(0.0, 0.9), WIDTH, PATCH_WIDTH)
    return filters_y, filters_x


def random_image(channels: int = 3) -> Tensor:
    return torch.rand(2, channels, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def random_patch() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, PATCH_HEIGHT, PATCH_WIDTH, dtype=torch.float64, generator=generator)


def test_filters_are_normal_densities_around_evenly_spaced_points():
    centers, sizes, log_variances = [9.3, -2.0, 25.0], [7.5, 12.0, 1.0], [0.3, -1.5, 2.0]
    result = gaussian_filters(column(*centers), column(*sizes), column(*log_variances), HEIGHT, PATCH_HEIGHT)

    expected = np.zeros((3, HEIGHT, PATCH_HEIGHT))
    for b, (center, size, log_variance) in enumerate(zip(centers, sizes, log_variances, strict=True)):
        for i in range(PATCH_HEIGHT):
            mean = center + (size + 1) / PATCH_HEIGHT * (i - (PATCH_HEIGHT - 1) / 2)
            for pixel in range(HEIGHT):
                expected[b, pixel, i] = scipy.stats.norm.pdf(pixel, mean, math.sqrt(math.exp(log_variance)))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-10, atol=1e-30)


@pytest.mark.parametrize("patch_length", [5, 6])
@pytest.mark.parametrize(("center", "size"), [(14.0, 9.0), (13.3, 6.5)])
def test_patch_of_a_ramp_shows_where_the_filters_stand(center: float, size: float, patch_length: int):
    # A Gaussian of variance 1 whose mass lies inside the image turns the ramp u(l) = l into its own mean.
    filters = gaussian_filters(column(center), column(size), column(0.0), WIDTH, patch_length)
    samples = (filters[0].T @ torch.arange(WIDTH, dtype=torch.float64)).numpy()

    assert samples.mean() == pytest.approx(center, abs=1e-3)
    np.testing.assert_allclose(np.diff(samples), (size + 1) / patch_length, atol=2e-3)
    reach = (size + 1) / 2 * (patch_length - 1) / patch_length
    assert samples[0] == pytest.approx(center - reach, abs=2e-3)
    assert samples[-1] == pytest.approx(center + reach, abs=2e-3)


def test_extract_and_paste_are_the_matrix_products_per_image_and_channel(filters: tuple[Tensor, Tensor]):
    image, patch = random_image(), random_patch()
    extracted, pasted = extract_patch(image, *filters), paste_patch(patch, *filters)

    assert extracted.shape == (2, 3, PATCH_HEIGHT, PATCH_WIDTH)
    assert pasted.shape == (2, HEIGHT, WIDTH)
    for b in range(2):
        filter_y, filter_x = filters[0][b].numpy(), filters[1][b].numpy()
        for c in range(3):
            np.testing.assert_allclose(extracted[b, c].numpy(), filter_y.T @ image[b, c].numpy() @ filter_x, rtol=1e-10)
        np.testing.assert_allclose(pasted[b].numpy(), filter_y @ patch[b].numpy() @ filter_x.T, rtol=1e-10)


def test_pasting_is_the_adjoint_of_extracting(filters: tuple[Tensor, Tensor]):
    image, patch = random_image(1), random_patch()
    in_patch = (extract_patch(image, *filters)[:, 0] * patch).sum((1, 2))
    in_image = (image[:, 0] * paste_patch(patch, *filters)).sum((1, 2))
    torch.testing.assert_close(in_patch, in_image, rtol=1e-10, atol=0)


def test_paste_ones_pastes_a_patch_of_ones(filters: tuple[Tensor, Tensor]):
    ones = torch.ones(2, PATCH_HEIGHT, PATCH_WIDTH, dtype=torch.float64)
    torch.testing.assert_close(paste_ones(*filters), paste_patch(ones, *filters), rtol=1e-10, atol=1e-14)


def test_moving_image_and_box_together_changes_nothing():
    image = torch.zeros(1, 2, HEIGHT, WIDTH, dtype=torch.float64)
    image[:, :, 4:11, 6:15] = torch.rand(1, 2, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    shift_y, shift_x = 5, 9

    def patch(pixels: Tensor, offset_y: int, offset_x: int) -> Tensor:
        filters_y = gaussian_filters(column(7.0 + offset_y), column(6.0), column(-0.5), HEIGHT, PATCH_HEIGHT)
        filters_x = gaussian_filters(column(10.0 + offset_x), column(8.0), column(0.2), WIDTH, PATCH_WIDTH)
        return extract_patch(pixels, filters_y, filters_x)

    moved = patch(image.roll((shift_y, shift_x), (2, 3)), shift_y, shift_x)
    torch.testing.assert_close(moved, patch(image, 0, 0), rtol=1e-10, atol=1e-12)


def test_a_box_far_outside_the_image_sees_and_paints_nothing():
    outside = gaussian_filters(column(-200.0, 300.0), column(8.0, 8.0), column(0.0, 0.0), HEIGHT, PATCH_HEIGHT)
    inside = gaussian_filters(column(10.0, 10.0), column(8.0, 8.0), column(0.0, 0.0), WIDTH, PATCH_WIDTH)
    assert extract_patch(random_image(), outside, inside).abs().max() == 0
    assert paste_patch(random_patch(), outside, inside).abs().max() == 0


def test_soft_mask_of_hand_computed_values():
    pasted = column(0.0, 1.0, 0.5, 2.0).view(2, 1, 2)
    result = soft_mask(pasted, column(2.0, 0.0))
    # exp(2) * 0, exp(2) * 1, 1 * 0.5, 1 * 2, each minus 5
    expected = [1 / (1 + math.exp(-z)) for z in (-5.0, 7.389056 - 5, -4.5, -3.0)]
    np.testing.assert_allclose(result.flatten().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("gain", [-3.0, 0.0, 4.0])
def test_soft_mask_where_nothing_is_pasted_does_not_depend_on_the_gain(gain: float):
    empty = soft_mask(torch.zeros(1, 2, 3), torch.tensor([gain]))
    np.testing.assert_allclose(empty.numpy(), 0.0066928509, rtol=1e-5)


def test_gradients_of_filters_extract_and_paste():
    def looked_at(center: Tensor, size: Tensor, log_variance: Tensor, image: Tensor, gain: Tensor) -> Tensor:
        filters_y = gaussian_filters(center, size, log_variance, 7, 3)
        filters_x = gaussian_filters(center + 1, size / 2, log_variance - 0.3, 9, 4)
        return soft_mask(paste_patch(extract_patch(image, filters_y, filters_x)[:, 0], filters_y, filters_x), gain)

    generator = torch.Generator().manual_seed(4)
    image = torch.rand(2, 1, 7, 9, dtype=torch.float64, generator=generator)
    inputs = [column(3.0, 4.1), column(4.0, 2.5), column(0.1, -0.4), image, column(0.5, 1.0)]
    assert torch.autograd.gradcheck(looked_at, [tensor.requires_grad_() for tensor in inputs])
