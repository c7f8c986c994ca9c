"""Overlap of soft masks and of boxes, pairwise, as matrix products.

Shapes: `B` images, `T` steps, `N` instances, `H, W` network input.
"""

import torch
from torch import Tensor

from .boxes import CenterBoxes

# Added to every pixel of a union, so that two empty masks have IoU 0 and not 0 / 0.
UNION_EPS = 1e-5
# Added to the area of a union of boxes, for the same reason.
BOX_UNION_EPS = 1e-5


def pairwise_intersection(first: Tensor, second: Tensor) -> Tensor:
    """Sum over pixels of ``a_t * b_n``.

    Args:
        first: [B, T, H, W].
        second: [B, N, H, W].

    Returns:
        [B, T, N]
    """
    return torch.bmm(first.flatten(2), second.flatten(2).transpose(1, 2))


def _pairwise_total(first: Tensor, second: Tensor) -> Tensor:
    """Sum over pixels of ``a_t + b_n``, [B, T, N]."""
    return first.flatten(2).sum(2)[:, :, None] + second.flatten(2).sum(2)[:, None, :]


def pairwise_soft_iou(first: Tensor, second: Tensor) -> Tensor:
    """Soft IoU ``sum(a b) / sum(a + b - a b + 1e-5)`` of every pair (paper, section 3.3).

    Args:
        first: [B, T, H, W] in [0, 1].
        second: [B, N, H, W] in [0, 1].

    Returns:
        [B, T, N] in [0, 1].
    """
    intersection = pairwise_intersection(first, second)
    pixels = first.shape[2] * first.shape[3]
    return intersection / (_pairwise_total(first, second) - intersection + UNION_EPS * pixels)


def pairwise_dice(first: Tensor, second: Tensor) -> Tensor:
    """Dice ``2 sum(a b) / sum(a + b + 2e-5)`` of every pair; 0 where both are empty.

    Args:
        first: [B, T, H, W] in [0, 1].
        second: [B, N, H, W] in [0, 1].

    Returns:
        [B, T, N] in [0, 1].
    """
    intersection = pairwise_intersection(first, second)
    pixels = first.shape[2] * first.shape[3]
    return 2 * intersection / (_pairwise_total(first, second) + 2 * UNION_EPS * pixels)


def pairwise_box_iou(first: CenterBoxes, second: CenterBoxes) -> Tensor:
    """Plain IoU of boxes from their corners.

    Args:
        first: boxes [B, T, 2].
        second: boxes [B, N, 2].

    Returns:
        [B, T, N] in [0, 1].
    """
    top_left = torch.maximum(first.top_left[:, :, None], second.top_left[:, None])
    bottom_right = torch.minimum(first.bottom_right[:, :, None], second.bottom_right[:, None])
    intersection = (bottom_right - top_left).clamp(min=0).prod(-1)
    area_first = first.size.prod(-1)[:, :, None]
    area_second = second.size.prod(-1)[:, None, :]
    return intersection / (area_first + area_second - intersection + BOX_UNION_EPS)
