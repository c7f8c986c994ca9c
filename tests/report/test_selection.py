"""Which images and groups are looked at."""

import numpy as np
import pytest

from rec_attend_d2.report.selection import evenly_spaced, group_label, ranked, split_evenly


def test_images_are_spread_over_the_data_set():
    records = [{"image_id": number} for number in range(9)]
    assert [r["image_id"] for r in evenly_spaced(records, 3)] == [0, 4, 8]
    assert evenly_spaced(records, 9) == evenly_spaced(records, 99) == records


def test_best_median_and_worst():
    sbd = [0.1, 0.9, 0.5, 0.3, 0.7, 0.2, 0.8]
    assert ranked(sbd) == {"best": [1, 6], "median": [4, 2], "worst": [5, 0]}
    for count in range(8):
        positions = [position for group in ranked(sbd[:count]).values() for position in group]
        assert len(positions) == len(set(positions)) == min(count, 6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 1, 2, 4], [[1], [2], [0], [3]]),
        ([5, 5, 5], [[0, 1, 2]]),
        ([0, 0, 0, 0, 0, 7], [[0, 1, 2, 3, 4], [5]]),
        ([1], [[0]]),
        ([], []),
    ],
)
def test_groups_are_even_and_ties_stay_together(values, expected):
    assert [group.tolist() for group in split_evenly(values)] == expected


def test_a_group_is_named_by_its_lowest_and_highest():
    assert group_label(np.array([3.0, 1.0, 2.0]), "{:.0f}") == "1 to 3"
    assert group_label(np.array([3.0, 3.0]), "{:.0f}") == "3"
