"""All that follows from how many network pixels wide a typical object is (INPUT.OBJECT_PIXELS).

The ratios come from the recipes that were found by hand for nuclei of 12 pixels.
"""

import math
from dataclasses import dataclass

# A typical object in its padded box has 1.8 times its width. A patch has about a pixel for each of the object's, and
# never fewer than what outlines nuclei well.
_BOX, _PATCH, _SMALLEST_PATCH = 1.8, 4 / 3, 24
# Sides of true boxes move out by this share of the box, at least by this share of a typical width.
_PADDING_RATIO, _PADDING = 0.2, 1 / 6
# Less than this share of a typical object's area is a speck.
_SPECK = 0.02


def rounded_up(length: float, multiple: int) -> int:
    """The smallest multiple that is not below a length."""
    return math.ceil(length / multiple) * multiple


@dataclass(frozen=True)
class Sizes:
    """Sizes in network pixels.

    Attributes:
        width: of a typical object.
    """

    width: float

    @property
    def initial_box(self) -> float:
        """Side of the boxes that a fresh proposer starts from."""
        return _BOX * self.width

    @property
    def patch(self) -> int:
        """F, side of a patch, a multiple of 8."""
        return max(_SMALLEST_PATCH, rounded_up(_PATCH * self.width, 8))

    @property
    def padding(self) -> tuple[float, float]:
        """Each side of a true box moves out by max(first * size, second)."""
        return _PADDING_RATIO, _PADDING * self.width

    @property
    def smallest_area(self) -> float:
        """Objects of at most so many square pixels are left out."""
        return _SPECK * self.width**2
