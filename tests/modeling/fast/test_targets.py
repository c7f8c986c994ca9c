"""What is still to be found: label images, owners of places, true patches, matching."""

import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.layers.patches import cut_patches
from rec_attend_d2.modeling.fast.targets import ObjectTargets, label_boxes, match_candidates, overlap_with_objects


def test_boxes_of_labels_are_tight():
    labels = torch.zeros(10, 12, dtype=torch.int64)
    labels[2:5, 3:9], labels[7, 11] = 1, 3
    areas, corners = label_boxes(labels, 3)
    assert areas.tolist() == [18, 0, 1]
    assert corners.tolist() == [[3, 2, 9, 5], [0, 0, 0, 0], [11, 7, 12, 8]]


def test_targets_are_what_the_label_images_show():
    torch.manual_seed(0)
    # Scattered pixels: boxes of several objects share nothing but the image.
    labels = torch.randint(-1, 7, (3, 20, 30)) * (torch.rand(3, 20, 30) < 0.06)
    labels[1] = torch.where(labels[1] > 3, 0, labels[1])
    labels[2] = -1
    classes = [torch.tensor([2, 0, 1, 1, 0, 2]), torch.tensor([1, 1, 0]), torch.zeros(0, dtype=torch.int64)]
    targets = ObjectTargets.from_labels(labels.int(), classes, (0.25, 2.0))
    assert torch.equal(targets.labels, labels.clamp(min=0)) and torch.equal(targets.taken, labels < 0)
    assert targets.classes.tolist() == [[2, 0, 1, 1, 0, 2], [1, 1, 0, 0, 0, 0], [0] * 6]
    for row, own in enumerate(labels):
        for index in range(6):
            places = (own == index + 1).nonzero().float()
            assert targets.areas[row, index] == len(places) and targets.valid[row, index] == (len(places) > 0)
            if len(places):
                low, high = places.amin(0), places.amax(0)
                size = high - low
                torch.testing.assert_close(targets.boxes.center[row, index], (low + high) / 2)
                padded = size + 2 * torch.maximum(0.25 * size, torch.tensor(2.0))
                torch.testing.assert_close(targets.boxes.size[row, index], padded)


@pytest.mark.parametrize("batch", [1, 2])
def test_images_without_objects_have_targets(batch):
    labels = torch.zeros(batch, 8, 8, dtype=torch.int32)
    targets = ObjectTargets.from_labels(labels, [torch.zeros(0, dtype=torch.int64)] * batch, (0.25, 2.0))
    assert targets.areas.tolist() == [[0]] * batch and not targets.valid.any()
    assert not targets.unclaimed(torch.zeros(batch, 8, 8)).any()


def test_the_smaller_of_two_objects_has_the_pixel(targets):
    assert targets.areas.tolist() == [[24 * 32 - 16, 144, 16], [0, 0, 0]]
    assert targets.labels[0, 17, 17] == 3 and targets.labels[0, 10, 10] == 1
    assert targets.valid.tolist() == [[True] * 3, [False] * 3]


def test_boxes_are_padded_by_ratio_or_pixels(targets):
    # From 8 to 31 and 8 to 39: a quarter of 23 and of 31; from 16 to 19: two pixels.
    torch.testing.assert_close(targets.boxes.center[0, 0], torch.tensor([19.5, 23.5]))
    torch.testing.assert_close(targets.boxes.size[0, 0], torch.tensor([23 * 1.5, 31 * 1.5]))
    torch.testing.assert_close(targets.boxes.size[0, 2], torch.tensor([7.0, 7.0]))


def test_an_object_is_claimed_once_half_of_it_is(targets):
    memory = torch.zeros(2, *targets.labels.shape[1:])
    assert targets.unclaimed(memory).tolist() == [[True] * 3, [False] * 3]
    memory[0, 40:46, 60:72] = 0.6  # half of the second
    memory[0, 8:32, 8:39] = 0.5  # not above the value
    assert targets.unclaimed(memory)[0].tolist() == [True, False, True]


def test_places_stand_for_the_smallest_object_they_see(targets):
    owners = targets.place_owners(targets.valid, (16, 24), 4).view(2, 16, 24)
    assert owners[0, 4, 4] == 3  # its centre is a pixel of the third, inside the first
    assert owners[0, 3, 3] == 1 and owners[0, 12, 16] == 2 and owners[0, 0, 0] == 0
    assert owners[1].sum() == 0
    claimed = torch.tensor([[True, True, False], [False] * 3])
    left = targets.place_owners(claimed, (16, 24), 4).view(2, 16, 24)
    assert set(left[0].unique().tolist()) == {0, 1, 2}


def test_a_speck_owns_the_place_its_centre_lies_in(targets):
    coarse = targets.place_owners(targets.valid, (8, 12), 8).view(2, 8, 12)
    # Its pixels are 16 to 19; the middle of the place, 20, is not among them.
    assert coarse[0, 2, 2] == 3


def test_true_patches_are_the_masks_cut_out(targets):
    image, instance = torch.tensor([0, 0]), torch.tensor([0, 2])
    boxes = CenterBoxes(torch.tensor([[20.0, 20.0], [17.5, 17.5]]), torch.tensor([[15.0, 15.0], [7.0, 7.0]]))
    own, others = targets.cut(image, instance, boxes, 16)
    for row, number in enumerate(instance + 1):
        mask = (targets.labels[:1] == number)[None].float()
        rest = ((targets.labels[:1] > 0) & (targets.labels[:1] != number))[None].float()
        box = CenterBoxes(boxes.center[row : row + 1], boxes.size[row : row + 1])
        for found, whole in ((own[row], mask), (others[row], rest)):
            torch.testing.assert_close(found, cut_patches(whole, torch.tensor([0]), box, 16)[0, 0], rtol=0, atol=1e-5)


def test_patches_beyond_the_image_are_empty(targets):
    boxes = CenterBoxes(torch.tensor([[-40.0, -40.0]]), torch.tensor([[10.0, 10.0]]))
    own, others = targets.cut(torch.tensor([0]), torch.tensor([0]), boxes, 8)
    assert own.sum() == 0 and others.sum() == 0


def test_overlap_is_with_the_objects_of_the_own_image(targets):
    overlap = overlap_with_objects(
        CenterBoxes(targets.boxes.center[0, :2], targets.boxes.size[0, :2]), torch.tensor([0, 1]), targets
    )
    torch.testing.assert_close(overlap[0, 0], torch.tensor(1.0))
    assert overlap[1, 1] == 0  # image 1 has no object there


def test_each_object_goes_to_the_best_candidate_that_wants_it():
    overlap = torch.tensor([[0.9, 0.5, 0.0], [0.8, 0.6, 0.0], [0.7, 0.65, 0.0], [0.2, 0.1, 0.0], [0.9, 0.0, 0.0]])
    image = torch.tensor([0, 0, 0, 0, 1])
    free = torch.tensor([[True, True, True], [True, False, False]])
    # The first gets object 0; the second then wants 1 and comes before the third, for which nothing is left.
    assert match_candidates(overlap, image, free, 0.3).tolist() == [0, 1, -1, -1, 0]


def test_claimed_objects_and_no_candidates_are_not_matched():
    assert match_candidates(torch.tensor([[0.9]]), torch.tensor([0]), torch.tensor([[False]]), 0.3).tolist() == [-1]
    assert (
        match_candidates(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), torch.ones(1, 2).bool(), 0.3).tolist()
        == []
    )
