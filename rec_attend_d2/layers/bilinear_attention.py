"""Bilinear attention: separable weights that sample a patch at a box and put one back without loss of sharpness.

The counterpart of :mod:`.gaussian_attention` for the fast recipe. A patch point i lies where the Gaussian filter i has
its centre (paper, section 3.2); what differs is the kernel, a triangle that reaches to the next point.

Shapes: `n` boxes; `L` stands for the map's H or W and `F` for the patch's F_h or F_w.
All coordinates are (y, x) in pixels of the map, where the centre of pixel i is i.
"""

import math

import torch
from torch import Tensor


def patch_points(center: Tensor, size: Tensor, patch_length: int) -> Tensor:
    """Where the points of a patch lie: [n, F] pixels, evenly spaced over ``size + 1`` around the centre.

    Args:
        center: [n], pixels.
        size: [n], distance of the box's first and last pixel.
        patch_length: F.
    """
    steps = torch.arange(patch_length, dtype=center.dtype, device=center.device) - (patch_length - 1) / 2
    return center[:, None] + (size[:, None] + 1) / patch_length * steps


def sampling_filters(center: Tensor, size: Tensor, length: int, patch_length: int) -> Tensor:
    """Weights that sample one axis bilinearly; where a patch point covers several pixels, their weighted mean.

    Args:
        center: [n], pixels.
        size: [n], distance of the box's first and last pixel.
        length: L, side of the map in pixels.
        patch_length: F.

    Returns:
        [n, L, F], each column sums to 1 where the point's surroundings lie on the map; outside counts as 0.
    """
    points = patch_points(center, size, patch_length)
    pixels = torch.arange(length, dtype=center.dtype, device=center.device)
    # Boxes up to twice the map's size; the triangle of a larger one is as wide as that.
    widest = 2 * length / patch_length
    reach = ((size + 1) / patch_length).clamp(1.0, max(widest, 1.0))[:, None, None]
    weights = (1 - (pixels[None, :, None] - points[:, None, :]).abs() / reach).clamp(min=0)
    # What the triangle's values at whole pixels sum to, were the map endless; they do not sum to its area.
    around = torch.arange(-math.ceil(widest) - 1, math.ceil(widest) + 2, dtype=center.dtype, device=center.device)
    offset = points - points.floor()
    total = (1 - (around[None, :, None] - offset[:, None, :]).abs() / reach).clamp(min=0).sum(1, keepdim=True)
    return weights / total


def pasting_filters(center: Tensor, size: Tensor, length: int, patch_length: int) -> Tensor:
    """Weights that interpolate a patch at the pixels of the map, along one axis.

    Args:
        center: [n], pixels.
        size: [n], distance of the box's first and last pixel.
        length: L, side of the map in pixels.
        patch_length: F.

    Returns:
        [n, L, F]; the rows of pixels inside the box sum to 1, those of all others are 0.
    """
    pixels = torch.arange(length, dtype=center.dtype, device=center.device)
    offset = pixels[None] - center[:, None]
    place = offset * (patch_length / (size + 1).clamp(min=1e-3))[:, None] + (patch_length - 1) / 2
    inside = (offset.abs() <= (size[:, None] + 1) / 2).to(center.dtype)
    points = torch.arange(patch_length, dtype=center.dtype, device=center.device)
    weights = (1 - (place.clamp(0, patch_length - 1)[:, :, None] - points).abs()).clamp(min=0)
    return weights * inside[:, :, None]
