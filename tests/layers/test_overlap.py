"""Overlaps against loops over pixels, and box IoU against Detectron2's."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.layers.overlap import (
    pairwise_box_iou,
    pairwise_dice,
    pairwise_intersection,
    pairwise_soft_iou,
)

HEIGHT, WIDTH = 5, 7
SOFT_OVERLAPS = [pairwise_soft_iou, pairwise_dice]


def soft_masks(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, count, HEIGHT, WIDTH, dtype=torch.float64, generator=generator)


def loop_iou(a: np.ndarray, b: np.ndarray) -> float:
    top = bottom = 0.0
    for p, q in zip(a.flat, b.flat, strict=True):
        top += p * q
        bottom += p + q - p * q + 1e-5
    return top / bottom


def loop_dice(a: np.ndarray, b: np.ndarray) -> float:
    top = bottom = 0.0
    for p, q in zip(a.flat, b.flat, strict=True):
        top += 2 * p * q
        bottom += p + q + 2e-5
    return top / bottom


@pytest.mark.parametrize(("overlap", "loop"), [(pairwise_soft_iou, loop_iou), (pairwise_dice, loop_dice)])
def test_soft_overlap_of_every_pair(overlap, loop):
    first, second = soft_masks(3, 0), soft_masks(4, 1)
    second[1, 2] = 0
    result = overlap(first, second)
    expected = [[[loop(a, b) for b in second[i].numpy()] for a in first[i].numpy()] for i in range(2)]
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-10)
    assert (result[1, :, 2] == 0).all()


def test_intersection_of_every_pair():
    first, second = soft_masks(3, 0), soft_masks(4, 1)
    expected = [[[(a * b).sum() for b in second[i].numpy()] for a in first[i].numpy()] for i in range(2)]
    np.testing.assert_allclose(pairwise_intersection(first, second).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("overlap", SOFT_OVERLAPS)
def test_two_empty_masks_do_not_overlap(overlap):
    empty = torch.zeros(1, 1, HEIGHT, WIDTH)
    assert overlap(empty, empty).item() == 0


@pytest.mark.parametrize("overlap", SOFT_OVERLAPS)
def test_identical_masks_overlap_almost_fully_and_disjoint_ones_not_at_all(overlap):
    mask = torch.zeros(1, 2, HEIGHT, WIDTH)
    mask[0, 0, :2] = 1
    mask[0, 1, 3:] = 1
    result = overlap(mask, mask)[0]
    # 14 pixels of 35: the small number added to each pixel costs 35 * 1e-5 / 14
    assert result[0, 0].item() == pytest.approx(1 - 35e-5 / 14, abs=1e-6)
    assert result[0, 0] < 1
    assert result[0, 1] == result[1, 0] == 0


def test_dice_and_iou_of_half_covered_masks():
    first, second = torch.zeros(2, 1, 1, HEIGHT, WIDTH).unbind()
    first[..., :4, :] = 1  # 28 pixels, 14 of them in the second
    second[..., 2:, :] = 1  # 21 pixels
    assert pairwise_soft_iou(first, second).item() == pytest.approx(14 / 35, rel=1e-4)
    assert pairwise_dice(first, second).item() == pytest.approx(28 / 49, rel=1e-4)


@pytest.mark.parametrize("overlap", SOFT_OVERLAPS)
def test_reordering_masks_reorders_overlaps(overlap):
    first, second = soft_masks(3, 2), soft_masks(4, 3)
    rows, columns = [2, 0, 1], [3, 1, 0, 2]
    result = overlap(first[:, rows], second[:, columns])
    torch.testing.assert_close(result, overlap(first, second)[:, rows][:, :, columns])
    torch.testing.assert_close(overlap(second, first), overlap(first, second).transpose(1, 2))


def random_boxes(count: int, seed: int) -> CenterBoxes:
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(2, count, 2, dtype=torch.float64, generator=generator) * 20
    size = torch.rand(2, count, 2, dtype=torch.float64, generator=generator) * 15 + 1
    return CenterBoxes(center, size)


def test_box_iou_is_detectron2s():
    first, second = random_boxes(4, 0), random_boxes(5, 1)
    result = pairwise_box_iou(first, second)
    assert ((result > 0.1).sum() > 5) and (result == 0).any()
    for b in range(2):
        expected = pairwise_iou(Boxes(first.xyxy()[b]), Boxes(second.xyxy()[b]))
        np.testing.assert_allclose(result[b].numpy(), expected.numpy(), atol=1e-5)


def test_box_iou_by_hand():
    first = CenterBoxes(torch.tensor([[[5.0, 5.0]]]), torch.tensor([[[10.0, 4.0]]]))
    second = CenterBoxes(torch.tensor([[[5.0, 5.0], [10.0, 6.0], [40.0, 5.0]]]), torch.tensor([[[10.0, 4.0]] * 3]))
    # the same; 5 x 3 of 40 + 40 - 15; apart
    np.testing.assert_allclose(pairwise_box_iou(first, second)[0, 0].numpy(), [1, 15 / 65, 0], atol=1e-6)


def test_boxes_of_no_size_overlap_nothing():
    point = CenterBoxes(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))
    assert pairwise_box_iou(point, point).item() == 0
