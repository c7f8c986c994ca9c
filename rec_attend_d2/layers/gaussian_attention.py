"""Gaussian attention: separable filters that cut a patch out of an image and paste one back (paper, section 3.2).

Shapes: `B` images, `C` channels, `H, W` image, `F_h, F_w` patch; `L` stands for H or W and `F` for F_h or F_w.
All coordinates are (y, x) in pixels of the image.
"""

import math

import torch
from torch import Tensor

# Added before the sigmoid of everything pasted, so that a place where nothing was pasted is sigmoid(-5) = 0.0067.
PASTE_BIAS = -5.0


def gaussian_filters(center: Tensor, size: Tensor, log_variance: Tensor, length: int, patch_length: int) -> Tensor:
    """Filter bank of one axis: column i is a Gaussian around the i-th of ``patch_length`` evenly spaced points.

    Args:
        center: [B], centre of the box in pixels.
        size: [B], side of the box in pixels.
        log_variance: [B], log of the variance of every Gaussian, in pixels squared.
        length: L, image side in pixels.
        patch_length: F, patch side in pixels.

    Returns:
        [B, L, F] densities N(l; mu_i, var), not normalised over the pixels l.
    """
    steps = torch.arange(patch_length, dtype=center.dtype, device=center.device) - (patch_length - 1) / 2
    mu = center[:, None] + (size[:, None] + 1) / patch_length * steps
    pixels = torch.arange(length, dtype=center.dtype, device=center.device)
    # In units in which the exponent is minus the square of the distance: few passes over [B, L, F].
    scale = torch.exp(-0.5 * log_variance)[:, None, None] * 0.5**0.5
    distance = (pixels[None, :, None] - mu[:, None, :]) * scale
    log_height = (-0.5 * log_variance - 0.5 * math.log(2 * math.pi))[:, None, None]
    return torch.exp(torch.addcmul(log_height, distance, distance, value=-1))


def extract_patch(image: Tensor, filters_y: Tensor, filters_x: Tensor) -> Tensor:
    """Cut a patch out of every channel: ``F_y^T u F_x``.

    Args:
        image: [B, C, H, W].
        filters_y: [B, H, F_h].
        filters_x: [B, W, F_w].

    Returns:
        [B, C, F_h, F_w]
    """
    rows = torch.matmul(image, filters_x[:, None])
    return torch.matmul(filters_y.transpose(1, 2)[:, None], rows)


def paste_patch(patch: Tensor, filters_y: Tensor, filters_x: Tensor) -> Tensor:
    """Put a patch back in its place, the transpose of :func:`extract_patch`: ``F_y m F_x^T``.

    Args:
        patch: [B, F_h, F_w].
        filters_y: [B, H, F_h].
        filters_x: [B, W, F_w].

    Returns:
        [B, H, W]
    """
    return torch.bmm(torch.bmm(filters_y, patch), filters_x.transpose(1, 2))


def paste_ones(filters_y: Tensor, filters_x: Tensor) -> Tensor:
    """``paste_patch`` of a patch of ones, from the row sums of the filters: [B, H, W]."""
    return filters_y.sum(2)[:, :, None] * filters_x.sum(2)[:, None, :]


def soft_mask(pasted: Tensor, log_gain: Tensor) -> Tensor:
    """Soft mask of a pasted patch: ``sigmoid(exp(log_gain) * pasted - 5)``.

    Args:
        pasted: [B, H, W].
        log_gain: [B].

    Returns:
        [B, H, W] in (0, 1).
    """
    return torch.sigmoid(torch.exp(log_gain)[:, None, None] * pasted + PASTE_BIAS)
