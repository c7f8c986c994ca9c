"""Patches: where they are cut, that pasting undoes cutting, and that pixels and whole maps are the same."""

import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.layers.patches import cut_patches, paste_maps, paste_pixels, scale_boxes

SIZE = (40, 56)


def boxes(*rows: tuple[float, float, float, float]) -> CenterBoxes:
    """Boxes of (y, x, height, width)."""
    values = torch.tensor(rows)
    return CenterBoxes(values[:, :2], values[:, 2:])


def ramp() -> torch.Tensor:
    """A map [2, 2, H, W] whose channels are the pixel's y and x, of the second image 100 more."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return torch.stack([torch.stack([y, x]), torch.stack([y, x]) + 100]).float()


def test_a_patch_of_the_boxs_own_size_is_its_pixels():
    patch = cut_patches(ramp(), torch.tensor([1]), boxes((10.5, 20.5, 7, 7)), 8)
    torch.testing.assert_close(patch[0, 0], 100 + torch.arange(7.0, 15)[:, None].expand(8, 8))
    torch.testing.assert_close(patch[0, 1], 100 + torch.arange(17.0, 25).expand(8, 8))


def test_points_lie_where_the_papers_filters_have_their_centres():
    patch = cut_patches(ramp(), torch.tensor([0]), boxes((12, 30, 11, 17)), 6)[0]
    steps = torch.arange(6) - 2.5
    torch.testing.assert_close(patch[0, :, 0], 12 + 12 / 6 * steps)
    torch.testing.assert_close(patch[1, 0], 30 + 18 / 6 * steps)


def test_a_coarser_map_counts_as_enlarged():
    coarse = torch.nn.functional.avg_pool2d(ramp(), 4)
    patch = cut_patches(coarse, torch.tensor([0]), boxes((20, 24, 11, 11)), 12, stride=4)[0]
    torch.testing.assert_close(patch[0, :, 0], torch.arange(14.5, 26))  # the middles of pixels 15 to 26, between cells


def test_outside_of_the_map_is_zero():
    patch = cut_patches(torch.ones(1, 1, *SIZE), torch.tensor([0]), boxes((0, 0, 15, 15)), 16)[0, 0]
    assert patch[:6].sum() == 0 and patch[9:, 9:].min() == 1


@pytest.mark.parametrize("side", [4, 24])
def test_pixels_and_whole_maps_agree(side):
    torch.manual_seed(0)
    some = boxes((10, 12, 9, 14), (38, 54, 12, 12), (20, 20, 60, 80), (5.3, 50.2, 0, 0), (-30, 5, 8, 8), (90, 90, 9, 9))
    patches = torch.randn(6, side, side)
    maps, inside = paste_maps(patches, some, SIZE)
    pixels = paste_pixels(patches, some, SIZE)
    expected = torch.zeros(6, *SIZE)
    expected[pixels.box, pixels.y, pixels.x] = pixels.value
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)
    counted = torch.zeros(6, *SIZE, dtype=torch.int64).index_put(
        (pixels.box, pixels.y, pixels.x), torch.tensor(1), True
    )
    assert torch.equal(counted, inside.long())
    assert inside[4:].sum() == 0 and inside[2].all() and inside[3].sum() == 1


def test_pasting_undoes_cutting():
    torch.manual_seed(1)
    picture = torch.nn.functional.avg_pool2d(torch.randn(1, 1, *SIZE), 5, 1, 2)
    box = boxes((18, 25, 19, 23))
    pixels = paste_pixels(cut_patches(picture, torch.tensor([0]), box, 48)[:, 0], box, SIZE)
    middle = (pixels.y - 18).abs() <= 8
    error = (pixels.value - picture[0, 0, pixels.y, pixels.x])[middle].abs()
    assert error.mean() < 0.03 and error.max() < 0.15


def test_no_box_has_no_pixel():
    assert (
        len(
            paste_pixels(
                torch.zeros(0, 8, 8), boxes((0, 0, 0, 0)).__class__(torch.zeros(0, 2), torch.zeros(0, 2)), SIZE
            ).y
        )
        == 0
    )


def test_scaled_boxes_cover_the_same_part_of_the_image():
    scaled = scale_boxes(boxes((9.5, 19.5, 19, 39)), (40, 56), (80, 28))
    torch.testing.assert_close(scaled.center, torch.tensor([[19.5, 9.5]]))
    torch.testing.assert_close(scaled.size, torch.tensor([[39.0, 19.0]]))
