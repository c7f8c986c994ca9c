"""Targets of one image: nothing is lost by the resize, order and boxes are right."""

import numpy as np
import pytest
from detectron2.data import transforms as T

from rec_attend_d2.data.augmentation import ResizeToSizeTransform, shift_transform
from rec_attend_d2.data.instances import build_targets, transform_mask

SIZE = (40, 60)
HALF = T.TransformList([ResizeToSizeTransform(SIZE, (20, 30))])
TENTH = T.TransformList([ResizeToSizeTransform(SIZE, (4, 6))])


def _annotation(rows: slice, columns: slice, category: int = 0, **more) -> dict:
    mask = np.zeros(SIZE, dtype=bool)
    mask[rows, columns] = True
    return {"segmentation": mask, "category_id": category, **more}


def test_largest_first_and_ties_in_order():
    annotations = [
        _annotation(slice(0, 4), slice(0, 4), 3),
        _annotation(slice(10, 20), slice(10, 30), 1),
        _annotation(slice(20, 24), slice(0, 4), 2),
        _annotation(slice(30, 38), slice(10, 20), 0),
    ]
    targets = build_targets(annotations, SIZE, HALF, (20, 30), "a.png")
    assert targets.masks.sum(axis=(1, 2)).tolist() == [50, 20, 4, 4]
    assert targets.classes.tolist() == [1, 0, 3, 2]
    instances = targets.to_instances(3)
    assert instances.image_size == (20, 30)
    assert instances.gt_classes.tolist() == [1, 0, 3]
    assert instances.gt_boxes.tensor.tolist() == [[5, 5, 15, 10], [5, 15, 10, 19], [0, 0, 2, 2]]
    np.testing.assert_array_equal(instances.gt_masks.tensor.numpy(), targets.masks[:3])


def test_no_annotations():
    instances = build_targets([], SIZE, HALF, (20, 30), "a.png").to_instances(5)
    assert len(instances) == 0
    assert instances.gt_masks.tensor.shape == (0, 20, 30)
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.shape == (0,)


def test_one_pixel_masks_survive_the_downscale():
    places = [(0, 0), (39, 59), (17, 33), (20, 20)]
    annotations = [_annotation(slice(y, y + 1), slice(x, x + 1)) for y, x in places]
    masks = build_targets(annotations, SIZE, TENTH, (4, 6), "a.png").masks
    assert [np.argwhere(mask).tolist() for mask in masks] == [[[y // 10, x // 10]] for y, x in places]


def test_thin_ring_keeps_one_pixel_of_its_own():
    y, x = np.mgrid[:40, :60]
    radius = np.hypot(y - 20, x - 30)
    ring = (radius < 19) & (radius > 18)
    moved = transform_mask(ring, TENTH)
    assert moved.sum() == 1
    place = np.argwhere(moved)[0]
    assert ring[place[0] * 10 : place[0] * 10 + 10, place[1] * 10 : place[1] * 10 + 10].any()


def test_shifted_out_is_dropped_and_small_rest_is_kept():
    shift = T.TransformList([ResizeToSizeTransform(SIZE, (4, 6)), shift_transform(-1, 0, (4, 6))])
    annotations = [
        _annotation(slice(2, 3), slice(5, 6), 1),  # leaves the image
        _annotation(slice(9, 12), slice(5, 6), 2),  # too thin, and half of it leaves
        _annotation(slice(10, 30), slice(20, 40), 3),
    ]
    targets = build_targets(annotations, SIZE, shift, (4, 6), "a.png")
    assert targets.classes.tolist() == [3, 2]
    assert np.argwhere(targets.masks[1]).tolist() == [[0, 0]]


def test_crowds_are_counted_not_used():
    annotations = [
        _annotation(slice(0, 40), slice(0, 60), iscrowd=1),
        _annotation(slice(0, 4), slice(0, 4), iscrowd=0),
        _annotation(slice(5, 9), slice(0, 4), iscrowd=1),
    ]
    targets = build_targets(annotations, SIZE, HALF, (20, 30), "a.png")
    assert targets.crowd_regions == 2
    assert targets.masks.sum(axis=(1, 2)).tolist() == [4]


def test_errors_name_file_and_annotation():
    good = _annotation(slice(0, 4), slice(0, 4))
    with pytest.raises(ValueError, match=r"a\.png: annotation 12 has malformed polygons"):
        build_targets([good, {"id": 12, "category_id": 0, "segmentation": []}], SIZE, HALF, (20, 30), "a.png")
    with pytest.raises(ValueError, match=r"a\.png: annotation number 1 has a segmentation of type NoneType"):
        build_targets([good, {"category_id": 0}], SIZE, HALF, (20, 30), "a.png")
    with pytest.raises(ValueError, match=r"a\.png: annotation number 0 has category_id None"):
        build_targets([{**good, "category_id": None}], SIZE, HALF, (20, 30), "a.png")
