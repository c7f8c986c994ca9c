"""What the fast model is trained on: drawn memories and true boxes."""

import pytest
import torch

from rec_attend_d2.modeling.fast import training
from rec_attend_d2.modeling.fast.training import TrueBoxes, draw_memory
from rec_attend_d2.modeling.steps import Proposal


def test_drawn_memories_claim_some_objects_and_no_piece_counts(targets):
    torch.manual_seed(0)
    claimed, empty = set(), 0
    for _ in range(300):
        memory = draw_memory(targets.labels[0], targets.taken[0])
        assert memory.shape == targets.labels.shape[1:] and 0 <= memory.min() and memory.max() <= 1
        empty += bool((memory == 0).all())
        both = torch.stack([memory, torch.zeros_like(memory)])
        claimed.add(tuple((targets.valid & ~targets.unclaimed(both))[0].tolist()))
    assert 110 < empty < 190
    # All subsets come, nothing and everything among them.
    assert len(claimed) == 8


def test_erosion_and_dilation_move_borders_by_a_pixel(targets, monkeypatch):
    monkeypatch.setattr(training, "CUT_SHARE", 0.0)
    torch.manual_seed(0)
    second = targets.labels[0] == 2
    areas = set()
    for _ in range(300):
        memory = draw_memory(torch.where(second, 1, 0), targets.taken[0])
        if memory[46, 66] > 0.5:
            areas.add(int((memory > 0.5).sum()))
    assert areas == {100, 144, 196}  # 12 x 12, a pixel less and a pixel more on every side


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_missing_side_leaves_most_of_an_object(targets, monkeypatch, share):
    monkeypatch.setattr(training, "CUT_SHARE", share)
    torch.manual_seed(0)
    labels, areas = targets.labels[0], targets.areas[0]
    lost = []
    for _ in range(100):
        missing = training._missing_sides(labels, 3, areas)
        assert not missing[labels == 0].any()
        lost.append(torch.bincount(labels[missing], minlength=4)[1:])
    assert (torch.stack(lost) < areas / 2).all()
    assert (torch.stack(lost) > 0).float().mean(0).gt(0.3).all() == (share > 0)


def test_an_image_without_objects_has_an_empty_memory(targets):
    assert draw_memory(targets.labels[1], targets.taken[1]).sum() == 0


def test_what_is_taken_is_claimed_in_every_memory(targets):
    torch.manual_seed(0)
    taken = torch.zeros_like(targets.taken[0])
    taken[:, 90:] = True
    for labels in targets.labels:
        for _ in range(20):
            assert (draw_memory(labels, taken)[:, 90:] == 1).all()


def test_true_boxes_are_those_of_unclaimed_objects_and_come_last(targets):
    torch.manual_seed(0)
    unclaimed = targets.valid & torch.tensor([[True, False, True]])
    fed = TrueBoxes(targets, unclaimed)
    assert fed.image.tolist() == [0, 0] and set(fed.instance.tolist()) == {0, 2}
    own = Proposal(torch.tensor([1]), type(targets.boxes)(torch.ones(1, 2), torch.ones(1, 2)), torch.zeros(1, 1))
    where = fed.where(own, None)
    assert where.image.tolist() == [1, 0, 0]
    size = targets.boxes.size[0, fed.instance]
    offset = (where.boxes.center[1:] - targets.boxes.center[0, fed.instance]).abs() / size
    assert offset.max() <= 0.15 and (where.boxes.size[1:] / size).log().abs().max() <= 0.3
