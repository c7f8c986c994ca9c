"""Losses of the preprocessor's maps (paper, section 3.1, A).

Shapes: `B` images, `K` foreground channels, `A` angle bins, `H, W` network input.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ranks import sum_over_ranks
from .losses import LOG_EPS


@dataclass
class MapTargets:
    """True maps of a batch.

    Attributes:
        foreground: [B, K, H, W] in {0, 1}; for K > 1 one-hot with the background first.
        angle: [B, A, H, W] in {0, 1}; 0 in all channels where no angle is known. None without an angle map.
        weight: [B, H, W], of each pixel in the loss of the foreground: 0 where nothing is known.
    """

    foreground: Tensor
    angle: Tensor | None
    weight: Tensor

    @property
    def objects(self) -> Tensor:
        """Pixels of any object, [B, H, W] bool."""
        classes = self.foreground if self.foreground.shape[1] == 1 else self.foreground[:, 1:]
        return classes.amax(1) > 0.5


def soft_iou_of_batch(predicted: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Soft IoU over all pixels and channels of a batch at once, in training that of all processes.

    Args:
        predicted: [B, C, H, W] in [0, 1].
        truth: [B, C, H, W] in {0, 1}.
        weight: [B, H, W].
    """
    weight = weight[:, None]
    both = predicted * truth * weight
    either = (predicted + truth) * weight - both + LOG_EPS
    return sum_over_ranks(both.sum()) / sum_over_ranks(either.sum())


def foreground_cross_entropy(predicted: Tensor, targets: MapTargets) -> Tensor:
    """Weighted mean over all pixels of the cross entropy, binary for a single channel.

    Args:
        predicted: [B, K, H, W], probabilities.
        targets: the truth.
    """
    truth = targets.foreground
    likelihood = truth * torch.log(predicted + LOG_EPS)
    if truth.shape[1] == 1:
        likelihood = likelihood + (1 - truth) * torch.log(1 - predicted + LOG_EPS)
    return -(likelihood.sum(1) * targets.weight).mean()


def foreground_iou(predicted: Tensor, targets: MapTargets) -> Tensor:
    """Minus the soft IoU of the foreground, or of all classes but the background, over the whole batch."""
    first = 0 if predicted.shape[1] == 1 else 1
    return -soft_iou_of_batch(predicted[:, first:], targets.foreground[:, first:], targets.weight)


# Losses of the foreground, by the value of LOSS.FOREGROUND.
FOREGROUND_LOSSES: dict[str, Callable[[Tensor, MapTargets], Tensor]] = {
    "bce": foreground_cross_entropy,
    "iou": foreground_iou,
}


def angle_cross_entropy(predicted: Tensor, targets: MapTargets) -> Tensor:
    """Mean cross entropy of the angle bins over object pixels whose angle is known; 0 where there is none.

    Args:
        predicted: [B, A, H, W], probabilities.
        targets: with an angle map.
    """
    assert targets.angle is not None
    known = targets.objects & (targets.angle.amax(1) > 0)
    likelihood = (targets.angle * torch.log(predicted + LOG_EPS)).sum(1)
    return -sum_over_ranks((likelihood * known).sum()) / sum_over_ranks(known.sum()).clamp(min=1)


@torch.no_grad()
def map_statistics(foreground: Tensor, angle: Tensor | None, targets: MapTargets) -> dict[str, Tensor]:
    """Soft and hard IoU of the foreground and the share of object pixels with the right angle bin.

    Args:
        foreground: [B, K, H, W], probabilities.
        angle: [B, A, H, W], probabilities, or None.
        targets: the truth.
    """
    hard = foreground > 0.5 if foreground.shape[1] == 1 else foreground == foreground.amax(1, keepdim=True)
    statistics = {
        "iou_soft": -foreground_iou(foreground, targets),
        "iou_hard": -foreground_iou(hard.to(foreground), targets),
    }
    if angle is not None and targets.angle is not None:
        known = targets.objects & (targets.angle.amax(1) > 0)
        right = (angle.argmax(1) == targets.angle.argmax(1)) & known
        statistics["angle_accuracy"] = right.sum() / known.sum().clamp(min=1)
    return statistics
