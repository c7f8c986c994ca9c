"""Missed, merged, split and invented objects, made by hand; and that there may be none of anything."""

import numpy as np
import pytest

from rec_attend_d2.report.errors import PictureErrors, find_errors
from rec_attend_d2.structures import MaskCrops


def rectangles(*boxes: tuple[int, int, int, int]) -> MaskCrops:
    """Masks of (top, left, bottom, right) in a picture of 40 x 60 pixels."""
    masks = np.zeros((len(boxes), 40, 60), bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return MaskCrops.from_masks(masks)


def flagged(flags: np.ndarray) -> list[int]:
    return np.flatnonzero(flags).tolist()


@pytest.fixture
def errors() -> PictureErrors:
    true = rectangles(
        (0, 0, 10, 10),  # 0: found
        (0, 20, 10, 30),  # 1 and 2: touch, and are taken for one
        (0, 30, 10, 36),
        (20, 0, 30, 20),  # 3: falls into two pieces
        (20, 30, 30, 40),  # 4: seen by a corner only, too little to be found
        (30, 50, 40, 60),  # 5: not seen
    )
    predicted = rectangles(
        (0, 0, 10, 11),  # 0: right
        (0, 20, 10, 36),  # 1: both of 1 and 2, and near enough to 1 to be its pair
        (20, 0, 30, 9),  # 2 and 3: pieces of 3
        (20, 10, 30, 19),
        (20, 30, 25, 35),  # 4: a corner of 4
        (12, 50, 18, 58),  # 5: where nothing is
        (29, 58, 31, 60),  # 6: half of it touches 5, which it does not come near
    )
    return find_errors(predicted, true)


def test_every_kind_of_error(errors):
    assert errors.partner.tolist() == [0, 1, -1, -1, -1, -1]
    assert flagged(errors.found) == [0, 1] and flagged(errors.right) == [0, 1]
    assert flagged(errors.merged) == [1] and flagged(errors.within_merged) == [1, 2]
    assert flagged(errors.split) == [3] and flagged(errors.piece) == [2, 3]
    assert flagged(errors.invented) == [5, 6] and flagged(errors.overlooked) == [5]


def test_half_is_not_mostly():
    # Two true objects of which just half lies inside the predicted one.
    halves = find_errors(rectangles((0, 5, 10, 15)), rectangles((0, 0, 10, 10), (0, 10, 10, 20)))
    assert not halves.merged.any() and not halves.within_merged.any() and not halves.invented.any()
    more = find_errors(rectangles((0, 4, 10, 16)), rectangles((0, 0, 10, 10), (0, 10, 10, 20)))
    assert more.merged.tolist() == [True] and more.within_merged.tolist() == [True, True]


@pytest.mark.parametrize(("predicted", "true"), [(0, 0), (0, 2), (2, 0)])
def test_nothing_on_one_side(predicted, true):
    boxes = [(0, 0, 5, 5), (10, 10, 15, 15)]
    errors = find_errors(rectangles(*boxes[:predicted]), rectangles(*boxes[:true]))
    assert errors.invented.tolist() == [True] * predicted and errors.overlooked.tolist() == [True] * true
    assert errors.found.tolist() == [False] * true and errors.right.tolist() == [False] * predicted
    assert not any(flags.any() for flags in (errors.merged, errors.within_merged, errors.split, errors.piece))
