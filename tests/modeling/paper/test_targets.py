"""Targets of a batch: slots, validity, padded boxes, and instances that are refused."""

import pytest
import torch
from detectron2.structures import BitMasks, Instances

from rec_attend_d2.modeling.paper.targets import Targets

RATIO, PIXELS = 0.2, 3.0


def instances_of(batch: list[dict]) -> list[Instances]:
    return [entry["instances"] for entry in batch]


def test_instances_fill_the_first_slots_in_their_order(make_batch, rectangle_masks):
    targets = Targets.from_instances(instances_of(make_batch([2, 0, 3])), 4, RATIO, PIXELS)
    assert targets.masks.shape == (3, 4, 32, 48)
    assert torch.equal(targets.masks[:, :3], rectangle_masks([2, 0, 3]))
    assert (targets.masks[:, 3] == 0).all()
    assert targets.valid.tolist() == [[True, True, False, False], [False] * 4, [True, True, True, False]]
    assert targets.counts.tolist() == [2, 0, 3]


def test_boxes_are_padded(make_batch):
    targets = Targets.from_instances(instances_of(make_batch([2])), 3, RATIO, PIXELS)
    # Rows 17..29 and columns 25..44: 12 and 19 pixels, of which a fifth is 2.4 (less than 3) and 3.8.
    torch.testing.assert_close(targets.boxes.top_left[0, 0], torch.tensor([14.0, 21.2]))
    torch.testing.assert_close(targets.boxes.bottom_right[0, 0], torch.tensor([32.0, 47.8]))


def test_box_maps_are_ones_in_the_padded_box_and_empty_where_there_is_no_object(make_batch):
    targets = Targets.from_instances(instances_of(make_batch([1, 0])), 2, RATIO, PIXELS)
    expected = torch.zeros(2, 2, 32, 48)
    expected[0, 0, 14:33, 22:48] = 1
    assert torch.equal(targets.box_maps, expected)


def test_more_instances_than_slots_are_refused(make_batch):
    with pytest.raises(ValueError, match="3 instances.*2 time steps.*TIME_STEPS"):
        Targets.from_instances(instances_of(make_batch([1, 3])), 2, RATIO, PIXELS)


def test_a_mask_without_a_pixel_is_refused(make_batch):
    batch = make_batch([2])
    batch[0]["instances"].gt_masks.tensor[1] = False
    with pytest.raises(ValueError, match="mask without a pixel"):
        Targets.from_instances(instances_of(batch), 3, RATIO, PIXELS)


def test_a_batch_without_any_object():
    empty = Instances((8, 9))
    empty.gt_masks = BitMasks(torch.zeros(0, 8, 9, dtype=torch.bool))
    targets = Targets.from_instances([empty, empty], 3, RATIO, PIXELS)
    assert targets.masks.shape == (2, 3, 8, 9)
    assert targets.counts.tolist() == [0, 0]
    assert targets.box_maps.sum() == 0
    assert torch.isfinite(targets.boxes.center).all() and torch.isfinite(targets.boxes.size).all()


def test_one_pixel_is_an_object():
    masks = torch.zeros(1, 2, 8, 9)
    masks[0, 0, 5, 6] = 1
    targets = Targets.from_masks(masks, RATIO, PIXELS)
    assert targets.valid.tolist() == [[True, False]]
    assert targets.boxes.center[0, 0].tolist() == [5, 6]
    assert targets.boxes.size[0, 0].tolist() == [6, 6]


def test_moving_to_a_device_keeps_everything(make_targets):
    targets = make_targets([2, 1])
    moved = targets.to(torch.device("cpu"))
    assert torch.equal(moved.masks, targets.masks) and torch.equal(moved.valid, targets.valid)
    assert torch.equal(moved.boxes.size, targets.boxes.size)
    assert (moved.padding_ratio, moved.padding_pixels) == (RATIO, PIXELS)
