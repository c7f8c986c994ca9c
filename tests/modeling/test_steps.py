"""Containers: choosing images of a batch, and stacking steps."""

import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.paper.sequence import GlimpseScan
from rec_attend_d2.modeling.steps import Cut, ExtraMaps, Proposal, Step, Where, select, stack_steps


def test_select_goes_into_nested_containers_and_tuples_and_leaves_the_rest():
    boxes = CenterBoxes(torch.rand(3, 8, 2), torch.rand(3, 8, 2))
    proposal = Proposal(torch.arange(3), boxes, torch.rand(3, 2, 4))
    chosen = select((proposal, None, "name", torch.arange(3)), torch.tensor([2, 0]))
    assert isinstance(chosen[0], Proposal) and isinstance(chosen[0].boxes, CenterBoxes)
    assert torch.equal(chosen[0].hidden, proposal.hidden[[2, 0]])
    assert torch.equal(chosen[0].boxes.center, boxes.center[[2, 0]])
    assert torch.equal(chosen[0].boxes.size, boxes.size[[2, 0]])
    assert chosen[1:3] == (None, "name")
    assert chosen[3].tolist() == [2, 0]
    assert len(proposal.hidden) == 3  # the container itself stays as it is


@pytest.mark.parametrize("index", [torch.tensor([False, True, True]), slice(1, 3)], ids=["mask", "slice"])
def test_select_takes_what_a_tensor_takes(index):
    maps = ExtraMaps(angle=torch.rand(3, 2), features=(torch.rand(3, 4), torch.rand(3, 5)))
    chosen = select(maps, index)
    assert torch.equal(chosen.angle, maps.angle[1:]) and chosen.foreground is None
    assert all(torch.equal(part, whole[1:]) for part, whole in zip(chosen.features, maps.features, strict=True))


def test_select_takes_pairs_of_image_and_step():
    boxes = CenterBoxes(torch.rand(2, 3, 2), torch.rand(2, 3, 2))
    # A tuple given as index is an index of two axes.
    chosen = select(boxes, (torch.tensor([1, 0]), torch.tensor([2, 2])))
    assert torch.equal(chosen.center, torch.stack([boxes.center[1, 2], boxes.center[0, 2]]))


def make_step(image: list[int], claimed: list[bool], batch: int = 3) -> Step:
    """A step with a box for every number in ``image``, whose hidden output is its own number."""
    count = len(image)
    boxes = CenterBoxes(torch.rand(count, 2), torch.rand(count, 2))
    proposal = Proposal(torch.tensor(image), boxes, torch.arange(count)[:, None])
    cut = Cut(torch.rand(count, 4, 6))
    where = Where(proposal.image, boxes)
    score = torch.rand(count)
    return Step(
        torch.rand(batch, 4, 6),
        GlimpseScan(torch.rand(batch, 1, 2, 3)),
        proposal,
        where,
        cut,
        score,
        None,
        torch.tensor(claimed),
    )


def test_stacked_steps_have_time_as_second_axis_and_keep_what_is_none():
    steps = [make_step([0, 1, 2], [True, False, True]) for _ in range(4)]
    stacked = stack_steps(steps)
    assert stacked.class_probabilities is None and stacked.cut.patch is None
    for t, step in enumerate(steps):
        assert torch.equal(stacked.proposal.boxes.center[:, t], step.proposal.boxes.center)
        assert torch.equal(stacked.cut.mask[:, t], step.cut.mask) and torch.equal(stacked.score[:, t], step.score)


def test_which_images_claimed_something():
    step = make_step([0, 0, 1, 2, 2, 2], [False, True, False, True, False, True])
    assert step.images_claimed().tolist() == [True, False, True]


@pytest.mark.parametrize(("row", "own"), [(0, [0, 1]), (1, []), (2, [2])])
def test_the_step_of_one_image_is_as_of_a_batch_of_one(row: int, own: list[int]):
    whole = make_step([0, 0, 2], [True, False, True])
    step = whole.of_image(row)
    assert step.proposal.hidden[:, 0].tolist() == own
    assert step.proposal.image.tolist() == step.where.image.tolist() == [0] * len(own)
    assert torch.equal(step.memory, whole.memory[row : row + 1])
    assert torch.equal(step.scan.glimpse_maps, whole.scan.glimpse_maps[row : row + 1])
    assert torch.equal(step.cut.mask, whole.cut.mask[own]) and torch.equal(step.score, whole.score[own])


def test_the_step_of_a_batch_of_one_is_itself():
    step = make_step([0, 0], [True, False], batch=1)
    assert step.of_image(0) is step
