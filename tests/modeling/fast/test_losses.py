"""Losses of a glance, where their value is known."""

import math

import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.fast.losses import (
    NEIGHBOR_WEIGHT,
    OBJECT_WEIGHT,
    PatchPairs,
    box_distance,
    box_loss,
    box_quality,
    class_loss,
    mask_loss,
    place_losses,
    score_loss,
)
from rec_attend_d2.modeling.fast.place_proposer import PlaceScan


def scan(logits: torch.Tensor) -> PlaceScan:
    """Places in a row, each with a box of side 9 at the origin."""
    places = logits.shape[1]
    boxes = CenterBoxes(torch.zeros(len(logits), places, 2), torch.full((len(logits), places, 2), 9.0))
    return PlaceScan(logits[:, None], boxes, 4)


def test_place_losses_ask_where_and_whether():
    logits = torch.log(torch.tensor([[1.0, 2.0, 1.0, 4.0], [1.0, 1.0, 1.0, 1.0]]))
    owners = torch.tensor([[0, 3, 1, 0], [0, 0, 0, 0]])
    losses = place_losses(scan(logits), owners, (owners > 0).float())
    # The second image has nothing to find, so that only the places' own question is asked of it.
    assert losses["loss_place"].item() == pytest.approx(-math.log(3 / 8))
    each = -math.log(1 / 2) - math.log(2 / 3) - math.log(1 / 2) - math.log(1 / 5) - 4 * math.log(1 / 2)
    assert losses["loss_object"].item() == pytest.approx(OBJECT_WEIGHT * each / 2)
    # What a place is to say is how well its box fits.
    losses = place_losses(scan(logits), owners, owners / 4)
    each += (1 / 4) * math.log(2) - (3 / 4) * math.log(1)
    assert losses["loss_object"].item() == pytest.approx(OBJECT_WEIGHT * each / 2)


def test_the_quality_of_a_place_is_how_its_box_fits_the_object_it_stands_for(targets):
    first, second = targets.boxes.center[0, 0], targets.boxes.center[0, 1]
    sizes = targets.boxes.size[0]
    center = torch.stack([first, first, second])[None].repeat(2, 1, 1)
    size = torch.stack([sizes[0], sizes[0] / torch.tensor([1.0, 2.0]), sizes[1]])[None].repeat(2, 1, 1)
    places = PlaceScan(torch.zeros(2, 1, 3), CenterBoxes(center, size), 4)
    quality = box_quality(places, torch.tensor([[1, 1, 1], [0, 0, 0]]), targets)
    torch.testing.assert_close(quality, torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    assert box_quality(places, torch.tensor([[2, 0, 2], [0, 0, 0]]), targets)[0].tolist() == pytest.approx([0, 0, 1])


def test_nothing_to_find_is_no_error(targets):
    losses = place_losses(scan(torch.zeros(1, 4)), torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4))
    assert losses["loss_place"] == 0 and losses["loss_object"].isfinite()
    assert box_loss(scan(torch.zeros(2, 4)), torch.zeros(2, 4, dtype=torch.int64), targets) == 0
    empty = torch.zeros(0, 4, 4, requires_grad=True)
    assert mask_loss(PatchPairs(empty, empty, empty)) == 0
    assert class_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 0


def test_box_distance_is_giou_and_relative_l1():
    truth = CenterBoxes(torch.tensor([[10.0, 10.0]]), torch.tensor([[8.0, 4.0]]))
    assert box_distance(truth, truth).item() == pytest.approx(0, abs=1e-5)
    moved = CenterBoxes(truth.center + torch.tensor([[2.0, 0.0]]), truth.size)
    # IoU 6 / 10, no gap; a quarter of the height, on one of two axes.
    assert box_distance(moved, truth).item() == pytest.approx(0.4 + 0.5 * 0.125, abs=1e-5)


def test_boxes_are_compared_with_the_object_of_their_place(targets):
    boxes = CenterBoxes(targets.boxes.center[:, [1, 0, 2]], targets.boxes.size[:, [1, 0, 2]])
    places = PlaceScan(torch.zeros(2, 1, 3), boxes, 4)
    assert box_loss(places, torch.tensor([[2, 0, 3], [0, 0, 0]]), targets).item() == pytest.approx(0, abs=1e-4)
    assert box_loss(places, torch.tensor([[1, 0, 0], [0, 0, 0]]), targets) > 0.5


def test_neighbours_weigh_more_in_the_mask_loss():
    logits, truth = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 0], [0, 0]]])
    neighbors = torch.tensor([[[0.0, 1], [0, 0]]])
    plain, weighted = (mask_loss(PatchPairs(logits, truth, n)).item() for n in (neighbors * 0, neighbors))
    assert plain == pytest.approx(math.log(2) + 1 - (2 * 0.5 + 1) / (2 + 1 + 1))
    assert weighted - plain == pytest.approx((NEIGHBOR_WEIGHT - 1) * math.log(2) / 4)


def test_scores_follow_what_was_found():
    assert score_loss(torch.tensor([0.9, 0.2]), torch.tensor([True, False])).item() == pytest.approx(
        -(math.log(0.9) + math.log(0.8)) / 2
    )
