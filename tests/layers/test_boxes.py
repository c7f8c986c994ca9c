"""Boxes of masks against numpy, the padding rule by hand, rasterising pixel by pixel."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks
from torch import Tensor

from rec_attend_d2.layers.boxes import (
    CenterBoxes,
    padded_boxes,
    pixel_edges,
    rasterize_boxes,
    tight_extent,
    unpadded_boxes,
)

HEIGHT, WIDTH = 40, 60


def rectangle(y0: int, x0: int, y1: int, x1: int) -> Tensor:
    """[1, 1, H, W], 1 on rows y0..y1 and columns x0..x1, both inclusive."""
    mask = torch.zeros(1, 1, HEIGHT, WIDTH)
    mask[:, :, y0 : y1 + 1, x0 : x1 + 1] = 1
    return mask


def boxes(*rows: tuple[float, float, float, float]) -> CenterBoxes:
    """One image's boxes [1, N, 2] from (centre y, centre x, height, width)."""
    table = torch.tensor([rows])
    return CenterBoxes(table[..., :2], table[..., 2:])


def test_tight_extent_of_scattered_pixels():
    masks = (torch.rand(3, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) > 0.998).float()
    masks[1, 2] = 0
    first, last, empty = tight_extent(masks)
    for b in range(3):
        for n in range(4):
            ys, xs = np.nonzero(masks[b, n].numpy())
            assert empty[b, n].item() == (len(ys) == 0)
            if len(ys):
                assert first[b, n].tolist() == [ys.min(), xs.min()]
                assert last[b, n].tolist() == [ys.max(), xs.max()]
    assert first[1, 2].tolist() == last[1, 2].tolist() == [0, 0]
    assert first.is_floating_point() and last.is_floating_point()


@pytest.mark.parametrize(("y", "x"), [(0, 0), (HEIGHT - 1, WIDTH - 1), (0, WIDTH - 1), (17, 23)])
def test_tight_extent_of_one_pixel(y: int, x: int):
    first, last, empty = tight_extent(rectangle(y, x, y, x))
    assert first.tolist() == last.tolist() == [[[y, x]]]
    assert not empty.any()


def test_tight_extent_counts_only_values_above_one_half():
    mask = rectangle(10, 10, 20, 30) * 0.5
    mask[0, 0, 12:14, 15:18] = 0.51
    first, last, _ = tight_extent(mask)
    assert first.tolist() == [[[12, 15]]]
    assert last.tolist() == [[[13, 17]]]


def test_tight_extent_of_boolean_masks_is_in_pixels():
    first, last, empty = tight_extent(rectangle(10, 7, 20, 30).bool())
    assert first.tolist() == [[[10.0, 7.0]]]
    assert last.tolist() == [[[20.0, 30.0]]]
    assert empty.tolist() == [[False]]


@pytest.mark.parametrize(
    ("ratio", "pixels", "expected_size"),
    [
        # rows 10..20 are 10 high, columns 5..45 are 40 wide
        (0.2, 3.0, (10 + 2 * 3.0, 40 + 2 * 8.0)),
        (0.2, 20.0, (50.0, 80.0)),
        (0.5, 0.0, (20.0, 80.0)),
        (0.0, 0.0, (10.0, 40.0)),
    ],
)
def test_every_side_moves_out_by_the_larger_of_ratio_and_pixels(
    ratio: float, pixels: float, expected_size: tuple[float, float]
):
    padded = padded_boxes(rectangle(10, 5, 20, 45), ratio, pixels)
    assert padded.center.tolist() == [[[15.0, 25.0]]]
    np.testing.assert_allclose(padded.size[0, 0].numpy(), expected_size, rtol=1e-6)


def test_padding_ratio_may_differ_per_instance():
    masks = rectangle(0, 0, 10, 40).expand(1, 3, HEIGHT, WIDTH)
    padded = padded_boxes(masks, torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1), 1.0)
    np.testing.assert_allclose(padded.size[0].numpy(), [[12, 48], [14, 56], [16, 64]], rtol=1e-6)


def test_an_empty_mask_gets_the_box_of_the_padding_alone():
    padded = padded_boxes(torch.zeros(1, 1, HEIGHT, WIDTH), torch.full((1, 1, 1), 0.3), 6.0)
    assert padded.top_left.tolist() == [[[0.0, 0.0]]]
    assert padded.bottom_right.tolist() == [[[12.0, 12.0]]]


@pytest.mark.parametrize("extent", [(3, 4, 30, 50), (3, 4, 5, 50), (7, 7, 8, 8), (0, 0, HEIGHT - 1, WIDTH - 1)])
@pytest.mark.parametrize(("ratio", "pixels"), [(0.2, 3.0), (0.2, 20.0), (0.0, 5.0), (0.7, 0.0)])
def test_unpadding_undoes_padding(extent: tuple[int, int, int, int], ratio: float, pixels: float):
    tight = unpadded_boxes(padded_boxes(rectangle(*extent), ratio, pixels), ratio, pixels)
    np.testing.assert_allclose(tight.top_left[0, 0].numpy(), extent[:2], atol=1e-4)
    np.testing.assert_allclose(tight.bottom_right[0, 0].numpy(), extent[2:], atol=1e-4)


def test_unpadding_leaves_no_negative_size():
    tight = unpadded_boxes(boxes((10, 20, 5, 0.1), (3, 4, 50, 40)), 0.2, 20.0)
    np.testing.assert_allclose(tight.size[0].numpy(), [[0, 0], [10, 0]])
    np.testing.assert_allclose(tight.center[0].numpy(), [[10, 20], [3, 4]])


def test_pixel_edges_are_the_box_that_detectron2_puts_around_a_mask():
    masks = torch.zeros(1, 2, HEIGHT, WIDTH)
    masks[0, 0, 3:9, 5:6] = masks[0, 1, 7, 11] = 1
    first, last, _ = tight_extent(masks)
    edges = pixel_edges(CenterBoxes((first + last) / 2, last - first)).xyxy()[0]
    assert torch.equal(edges, BitMasks(masks[0].bool()).get_bounding_boxes().tensor)


def test_rasterized_boxes_include_both_bounds():
    given = boxes((10, 20, 4, 6), (10.5, 20.25, 4, 6.5), (0, WIDTH, 6, 8), (-30, 5, 10, 10), (7, 7, 0, 0))
    maps = rasterize_boxes(given, HEIGHT, WIDTH)[0].numpy()
    for n in range(5):
        (y0, x0), (y1, x1) = given.top_left[0, n].tolist(), given.bottom_right[0, n].tolist()
        for y in range(HEIGHT):
            for x in range(WIDTH):
                assert maps[n, y, x] == float(y0 <= y <= y1 and x0 <= x <= x1)
    assert maps.sum((1, 2)).tolist() == [5 * 7, 4 * 7, 4 * 4, 0, 1]


def test_the_raster_of_a_tight_box_is_the_mask_it_came_from():
    mask = rectangle(4, 9, 13, 40)
    torch.testing.assert_close(rasterize_boxes(padded_boxes(mask, 0.0, 0.0), HEIGHT, WIDTH), mask)


def test_xyxy_has_x_first_and_is_not_clipped():
    assert boxes((10, 20, 4, 6), (0, 0, 8, 2)).xyxy().tolist() == [[[17, 8, 23, 12], [-1, -4, 1, 4]]]
