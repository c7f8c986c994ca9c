"""Claims: nothing is claimed twice, pixels go to the strongest mask, and all glances together make instances."""

import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.fast.claims import (
    instances_of_glances,
    label_boxes,
    mask_pixels,
    new_objects,
    strongest_masks,
    write_claims,
)
from rec_attend_d2.modeling.steps import Cut, Proposal, Step, Where

SIZE = (32, 48)
# Boxes from 4 to 11 and 8 to 19, and from 8 to 15 and 12 to 23: they overlap from 8 to 11 and 12 to 19.
BOXES = CenterBoxes(torch.tensor([[7.5, 13.5], [11.5, 17.5]]), torch.tensor([[7.0, 11.0], [7.0, 11.0]]))
SURE = torch.tensor([3.0, 5.0])[:, None, None].expand(2, 8, 8)


def test_masks_are_soft_and_end_at_their_boxes():
    pixels = mask_pixels(SURE, BOXES, SIZE)
    assert torch.bincount(pixels.box).tolist() == [96, 96]
    assert pixels.y[pixels.box == 0].aminmax() == (4, 11) and pixels.x[pixels.box == 1].aminmax() == (12, 23)
    torch.testing.assert_close(pixels.value.unique(), torch.sigmoid(torch.tensor([3.0, 5.0])))


def test_what_is_mostly_claimed_is_no_new_object():
    pixels, image = mask_pixels(SURE, BOXES, SIZE), torch.tensor([0, 1])
    memory = torch.zeros(2, *SIZE)
    assert new_objects(pixels, image, memory, 2).tolist() == [True, True]
    memory[0, :8] = 0.9  # half of the first
    assert new_objects(pixels, image, memory, 2).tolist() == [False, True]
    empty = mask_pixels(torch.full((2, 8, 8), -3.0), BOXES, SIZE)
    assert new_objects(empty, image, torch.zeros(2, *SIZE), 2).tolist() == [False, False]


def test_memory_is_the_maximum_in_each_image():
    memory = torch.full((2, *SIZE), 0.97)
    written = write_claims(mask_pixels(SURE, BOXES, SIZE), torch.tensor([0, 1]), memory)
    assert (written[0] == 0.97).all()  # sigmoid(3) is less
    assert (written[1, 8:16, 12:24] > 0.99).all() and (written[1] > 0.98).sum() == 96
    assert (memory == 0.97).all()


def test_pixels_go_to_the_strongest_mask_and_of_equals_to_the_first():
    labels = strongest_masks(mask_pixels(SURE, BOXES, SIZE), SIZE)
    assert labels[9, 14] == 2 and labels[5, 9] == 1 and labels[0, 0] == 0
    equal = strongest_masks(mask_pixels(SURE[:1].expand(2, 8, 8), BOXES, SIZE), SIZE)
    assert equal[9, 14] == 1
    weak = strongest_masks(mask_pixels(torch.zeros(2, 8, 8), BOXES, SIZE), SIZE)
    assert weak.sum() == 0


def test_boxes_of_labels_are_tight():
    labels = torch.zeros(10, 12, dtype=torch.int64)
    labels[2:5, 3:9], labels[7, 11] = 1, 3
    areas, corners = label_boxes(labels, 3)
    assert areas.tolist() == [18, 0, 1]
    assert corners[0].tolist() == [3, 2, 9, 5] and corners[2].tolist() == [11, 7, 12, 8]


def glance(claimed: list[bool], row: int) -> Step:
    """A glance at one of the two boxes."""
    one = slice(row, row + 1)
    boxes, image = CenterBoxes(BOXES.center[one], BOXES.size[one]), torch.tensor([0])
    proposal = Proposal(image, boxes, torch.zeros(1, 1))
    cut = Cut(None, None, SURE[one], None)
    score, classes = torch.tensor([0.9 - row / 10]), torch.tensor([[0.1, 0.9]])
    return Step(torch.zeros(1, *SIZE), None, proposal, Where(image, boxes), cut, score, classes, torch.tensor(claimed))


def test_instances_are_made_at_the_images_own_size():
    found = instances_of_glances([glance([True], 0), glance([True], 1), glance([False], 1)], SIZE, (64, 96), 0)
    assert found.image_size == (64, 96) and found.scores.tolist() == [0.8999999761581421, 0.800000011920929]
    assert found.pred_classes.tolist() == [1, 1]
    assert found.pred_boxes.tensor.tolist() == [[16, 8, 40, 24], [24, 16, 48, 32]]
    assert found.pred_masks.sum((1, 2)).tolist() == [4 * (96 - 32), 4 * 96] and not found.pred_masks.all(0).any()


def test_small_and_hidden_objects_are_left_out():
    both = [glance([True], 0), glance([True], 1)]
    assert len(instances_of_glances(both, SIZE, SIZE, 70)) == 1
    assert len(instances_of_glances([glance([True], 1), glance([True], 1)], SIZE, SIZE, 0)) == 1
    assert len(instances_of_glances([glance([False], 0)], SIZE, SIZE, 0)) == 0
