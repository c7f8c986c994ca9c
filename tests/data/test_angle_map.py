"""Angle maps against the original code's, and against their definition."""

import os
from pathlib import Path

import numpy as np
import pytest

from rec_attend_d2.data.angle_map import angle_map, foreground_map

REFERENCE = Path(
    os.environ.get("REC_ATTEND_REFERENCE", Path(__file__).resolve().parents[2] / ".." / "shared" / "reference")
)


@pytest.mark.parametrize("name", ["fg_kitti", "fg_city"])
def test_equals_the_original(name):
    path = REFERENCE / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {REFERENCE}; set REC_ATTEND_REFERENCE to the folder of reference outputs")
    reference = np.load(path, allow_pickle=False)
    for instances, expected in zip(reference["in/instances"].astype(bool), reference["in/d_gt"], strict=True):
        result = angle_map(instances[instances.any(axis=(1, 2))])
        assert expected.sum() > 100
        np.testing.assert_array_equal(result, expected.transpose(2, 0, 1))


def test_sectors_of_a_disc():
    y, x = np.mgrid[-20:21, -20:21]
    disc = y**2 + x**2 <= 400
    result = angle_map(disc[None])
    angle = np.arctan2(y, x)
    sector = np.floor((angle + np.pi / 8 + np.pi) * 8 / (2 * np.pi)).astype(int) % 8
    inside = disc & (y**2 + x**2 > 0)
    np.testing.assert_array_equal(result.argmax(axis=0)[inside], sector[inside])
    np.testing.assert_array_equal(result.sum(axis=0), disc)
    # Left, up, right, down of the centre (rows grow downwards).
    assert [int(result[:, 20 + dy, 20 + dx].argmax()) for dy, dx in ((0, -9), (-9, 0), (0, 9), (9, 0))] == [0, 2, 4, 6]


def test_other_numbers_of_bins():
    mask = np.ones((1, 9, 9), dtype=bool)
    for bins in (1, 4, 16):
        result = angle_map(mask, bins)
        assert result.shape == (bins, 9, 9) and (result.sum(axis=0) == 1).all()


def test_overlap_has_the_sectors_of_both():
    masks = np.zeros((2, 5, 12), dtype=bool)
    masks[0, :, :8] = True
    masks[1, :, 4:] = True
    both = angle_map(masks)
    np.testing.assert_array_equal(both, np.maximum(angle_map(masks[:1]), angle_map(masks[1:])))
    # Row 2, column 6 lies to the right of the first centre and to the left of the second.
    assert both[4, 2, 6] == 1 and both[0, 2, 6] == 1


def test_one_pixel_lies_to_the_right_of_itself():
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, 1, 2] = True
    result = angle_map(mask)
    assert result.sum() == 1 and result[4, 1, 2] == 1


def test_no_instances():
    assert angle_map(np.zeros((0, 4, 6), dtype=bool)).shape == (8, 4, 6)
    assert angle_map(np.zeros((0, 4, 6), dtype=bool)).sum() == 0
    empty = foreground_map(np.zeros((0, 4, 6), dtype=bool), np.zeros(0, dtype=np.int64), 3)
    assert (empty[0] == 1).all() and empty[1:].sum() == 0


def test_foreground_is_the_union():
    masks = np.zeros((2, 3, 4), dtype=bool)
    masks[0, :2] = True
    masks[1, 1:, 0] = True
    result = foreground_map(masks, np.array([5, 9]), 1)
    np.testing.assert_array_equal(result, (masks[0] | masks[1])[None])


def test_semantic_classes_are_one_hot_and_the_smaller_wins():
    masks = np.zeros((2, 3, 4), dtype=bool)
    masks[0, :2] = True
    masks[1, 1:, 0] = True
    result = foreground_map(masks, np.array([1, 0]), 3)
    np.testing.assert_array_equal(result.argmax(axis=0), [[2, 2, 2, 2], [1, 2, 2, 2], [1, 0, 0, 0]])
    assert (result.sum(axis=0) == 1).all()


def test_class_without_channel():
    with pytest.raises(ValueError, match=r"Class 2 .*FOREGROUND_CLASSES"):
        foreground_map(np.ones((1, 2, 2), dtype=bool), np.array([2]), 3)
