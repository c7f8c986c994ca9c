"""Marks of errors beside each other: each at its place, apart by more than colour."""

import numpy as np

from rec_attend_d2.report.errors import find_errors
from rec_attend_d2.report.pictures import (
    DIFFERENT,
    FOUND,
    INVENTED,
    MARKS,
    MERGED,
    MISSED,
    SPLIT,
    draw_comparison,
    draw_legend,
    draw_marked,
    predicted_marks,
    true_marks,
)
from rec_attend_d2.structures import MaskCrops


def rectangles(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> MaskCrops:
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return MaskCrops.from_masks(masks)


def test_every_object_has_its_mark():
    size = (40, 60)
    true = rectangles(
        size, (0, 0, 10, 10), (0, 20, 10, 30), (0, 30, 10, 36), (20, 0, 30, 20), (20, 30, 30, 40), (30, 50, 40, 60)
    )
    predicted = rectangles(
        size, (0, 0, 10, 11), (0, 20, 10, 36), (20, 0, 30, 9), (20, 10, 30, 19), (20, 30, 25, 35), (12, 50, 18, 58)
    )
    errors = find_errors(predicted, true)
    assert true_marks(errors) == [FOUND, FOUND, MERGED, SPLIT, MISSED, MISSED]
    assert predicted_marks(errors) == [FOUND, MERGED, SPLIT, SPLIT, DIFFERENT, INVENTED]


def test_marks_differ_without_their_colours():
    assert len({(mark.sign, mark.thickness, mark.dash) for mark in MARKS}) == len({mark.sign for mark in MARKS}) == 6
    legend = draw_legend()
    assert all((legend == mark.color).all(2).any() for mark in MARKS)


def test_outlines_lie_where_the_objects_are():
    panel = np.zeros((80, 120, 3), np.uint8)
    masks = rectangles((40, 60), (10, 20, 20, 40), (30, 5, 36, 15))
    drawn = draw_marked(panel, masks, [FOUND, MISSED], 2)
    rows, columns = np.nonzero((drawn == FOUND.color).all(2))
    assert np.abs(np.array([rows.min(), rows.max(), columns.min(), columns.max()]) - [20, 39, 40, 79]).max() <= 1
    assert (drawn[10:80, 2:40] == MISSED.color).all(2).any()
    assert not panel.any()


def test_small_pictures_are_magnified_and_large_ones_shrunk():
    for size, shown in (
        ((64, 64), (320, 320)),
        ((500, 2000), (160, 640)),
        ((3000, 600), (800, 160)),
        ((400, 600), (400, 600)),
    ):
        masks = rectangles(size, (1, 1, 30, 30))
        picture = draw_comparison(np.zeros((*size, 3), np.uint8), masks, masks, find_errors(masks, masks))
        assert picture.shape == (shown[0] + 32 + 8, 2 * (shown[1] + 4), 3)
