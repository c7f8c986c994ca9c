"""Claims: nothing is claimed twice, pixels go to the strongest mask, and all glances together make instances."""

import numpy as np
import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.fast import claims as module
from rec_attend_d2.modeling.fast.claims import (
    MASK_THRESHOLD,
    Claims,
    claimed_masks,
    instances_of_claims,
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


def dense_masks(logits: torch.Tensor, boxes: CenterBoxes, size: tuple[int, int], overlapping: bool) -> np.ndarray:
    """Masks [m, h, w] as they would be without parts and crops."""
    pixels = mask_pixels(logits, boxes, size)
    values = torch.zeros(len(logits), *size).index_put((pixels.box, pixels.y, pixels.x), pixels.value)
    masks = values > MASK_THRESHOLD
    if not overlapping:
        strongest = torch.arange(len(logits))[:, None, None] == values.argmax(0)
        masks &= strongest
    return masks.numpy()


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("part", [7, 16, 2048])
def test_masks_of_an_image_in_parts_are_those_of_the_whole(monkeypatch, part, overlapping):
    monkeypatch.setattr(module, "_PART", part)
    torch.manual_seed(0)
    size, logits = (41, 50), torch.randn(60, 8, 8) * 4
    # Some reach over the border, or lie outside.
    boxes = CenterBoxes(torch.rand(60, 2) * 70 - 10, torch.rand(60, 2) * 20)
    boxes.center[:20], boxes.size[:20] = boxes.center[:20].round(), boxes.size[:20].round()
    masks = claimed_masks(logits, boxes, size, overlapping)
    expected = dense_masks(logits, boxes, size, overlapping)
    np.testing.assert_array_equal(masks.numpy(), expected)
    assert 0 < (expected.sum((1, 2)) > 0).sum() < 60
    assert (expected.sum(0).max() > 1) == overlapping


def test_an_image_without_claims_has_no_masks():
    none = CenterBoxes(torch.zeros(0, 2), torch.zeros(0, 2))
    assert claimed_masks(torch.zeros(0, 8, 8), none, SIZE, False).shape == (0, *SIZE)


def glance(claimed: list[bool], row: int) -> Step:
    """A glance at one of the two boxes."""
    one = slice(row, row + 1)
    boxes, image = CenterBoxes(BOXES.center[one], BOXES.size[one]), torch.tensor([0])
    proposal = Proposal(image, boxes, torch.zeros(1, 1))
    cut = Cut(None, None, SURE[one], None)
    score, classes = torch.tensor([0.9 - row / 10]), torch.tensor([[0.1, 0.9]])
    return Step(torch.zeros(1, *SIZE), None, proposal, Where(image, boxes), cut, score, classes, torch.tensor(claimed))


def found(steps: list[Step], size: tuple[int, int] = SIZE, smallest_area: float = 0, **options):
    return instances_of_claims(Claims.of_steps(steps), SIZE, size, smallest_area, **options)


def test_instances_are_made_at_the_images_own_size():
    result = found([glance([True], 0), glance([True], 1), glance([False], 1)], (64, 96))
    assert result.image_size == (64, 96)
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.8]))
    assert result.pred_classes.tolist() == [1, 1]
    assert result.pred_boxes.tensor.tolist() == [[16, 8, 40, 24], [24, 16, 48, 32]]
    assert result.pred_masks.areas().tolist() == [4 * (96 - 32), 4 * 96]
    assert not result.pred_masks.numpy().all(0).any()


def test_masks_may_overlap_where_that_is_asked_for():
    both = [glance([True], 0), glance([True], 1)]
    assert found(both, overlapping=True).pred_masks.areas().tolist() == [96, 96]


def test_specks_and_hidden_objects_are_left_out():
    both = [glance([True], 0), glance([True], 1)]
    assert found(both, smallest_area=63.9).scores.tolist() == pytest.approx([0.9, 0.8])
    # The first has 64 pixels left; at the file's size it is network pixels that count.
    assert found(both, smallest_area=64).scores.tolist() == pytest.approx([0.8])
    assert len(found(both, (16, 24), smallest_area=63.9)) == 2 and len(found(both, (16, 24), smallest_area=64)) == 1
    assert len(found([glance([True], 1), glance([True], 1)])) == 1
    nothing = found([glance([False], 0)], (64, 96))
    assert len(nothing) == 0 and nothing.pred_masks.shape == (0, 64, 96)
