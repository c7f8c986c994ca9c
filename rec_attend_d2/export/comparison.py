"""How far an exported model is from the original."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .formats import Runner


@dataclass
class Comparison:
    """Largest differences over all images.

    Attributes:
        differences: by output. A value's difference counts relative to the original's absolute value where that is
            above 1 (as coordinates in pixels are), as it is below. It is infinite where one of both is not a number.
        images: how many images were compared.
    """

    differences: dict[str, float]
    images: int

    def above(self, tolerance: float) -> list[str]:
        """Names of the outputs that differ by more than ``tolerance``."""
        return [name for name, difference in self.differences.items() if difference > tolerance]


def largest_difference(value: Tensor, original: Tensor) -> float:
    """See :class:`Comparison`; any shape, but the same for both. Raises a ValueError where they differ."""
    if value.shape != original.shape:
        raise ValueError(f"The exported model gives {tuple(value.shape)}, the original {tuple(original.shape)}.")
    original = original.cpu().double()
    difference = (value.cpu().double() - original).abs() / original.abs().clamp(min=1)
    return difference.nan_to_num(nan=torch.inf).max().item()


def compare(exported: Runner, original: Runner, batches: Iterable[Tensor]) -> Comparison:
    """Run both models on batches of images [B, 3, H, W] and collect their largest differences.

    Raises:
        ValueError: their outputs have different names or shapes.
    """
    comparison = Comparison({}, 0)
    for images in batches:
        values, expected = exported(images), original(images)
        if values.keys() != expected.keys():
            raise ValueError(f"The exported model gives {sorted(values)}, the original {sorted(expected)}.")
        for name, truth in expected.items():
            difference = largest_difference(values[name], truth)
            comparison.differences[name] = max(difference, comparison.differences.get(name, 0.0))
        comparison.images += len(images)
    return comparison
