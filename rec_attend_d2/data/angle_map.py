"""Angle and foreground maps made from true masks (paper, section 3.1, A).

Shapes: `N` instances, `H, W` network input, `K` foreground channels.
"""

import numpy as np
from numpy.typing import NDArray


def angle_map(masks: NDArray[np.bool_], bins: int = 8) -> NDArray[np.float32]:
    """In which direction each pixel lies from the centre of its instance, one-hot over ``bins`` sectors.

    As the authors' code does it, small constants and all: direction = (offset + 1e-8) / (length + 1e-7), the centroid
    itself thus counts as lying to the right. Sector 0 is centred on the direction of negative x, and sectors
    follow each other with growing atan2(y, x).

    Args:
        masks: [N, H, W], none empty.
        bins: number of sectors.

    Returns:
        [bins, H, W] of 0 and 1. Pixels of no instance are 0 everywhere; those of several have all their sectors.
    """
    result = np.zeros((bins, *masks.shape[1:]), dtype=np.float32)
    for mask in masks:
        pixels = np.nonzero(mask)
        position = np.stack(pixels).astype(np.float64)
        offset = position - position.mean(axis=1, keepdims=True)
        result[(_sectors(offset, bins), *pixels)] = 1
    return result


def _sectors(offset: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Sector numbers [P] of ``offset`` [2, P], (y, x) pixels from the centroid."""
    y, x = (offset + 1e-8) / (np.linalg.norm(offset, axis=0) + 1e-7)
    from_x_axis = np.arcsin(np.clip(y, -1, 1))
    angle = np.where(x >= 0, from_x_axis, np.where(y >= 0, np.pi, -np.pi) - from_x_axis)
    return np.floor((angle + np.pi / bins + np.pi) * bins / (2 * np.pi)).astype(np.int64) % bins


def foreground_map(masks: NDArray[np.bool_], classes: NDArray[np.int64], channels: int) -> NDArray[np.float32]:
    """Foreground, or semantic classes.

    Args:
        masks: [N, H, W], largest first.
        classes: [N], 0 to number of classes - 1.
        channels: K. 1 = one map of all instances; otherwise a one-hot map whose channel 0 is the background and whose
            channel c + 1 is class c. Where instances overlap the smallest decides.

    Returns:
        [K, H, W] of 0 and 1.

    Raises:
        ValueError: a class that has no channel.
    """
    if channels == 1:
        return np.logical_or.reduce(masks, axis=0)[None].astype(np.float32)
    if len(classes) and classes.max() + 1 >= channels:
        raise ValueError(
            f"Class {classes.max()} has no channel in a foreground map of {channels}, the first of which is the "
            "background. MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES must be 1, or the number of classes + 1."
        )
    labels = np.zeros(masks.shape[1:], dtype=np.int64)
    for mask, label in zip(masks, classes, strict=True):
        labels[mask] = label + 1
    return np.equal(labels, np.arange(channels)[:, None, None]).astype(np.float32)
