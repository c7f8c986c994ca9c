"""Containers: choosing images of a batch, and stacking steps."""

import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.step_types import ExtraMaps, Places, Proposal, select, stack_steps


def test_select_goes_into_nested_containers_and_tuples_and_leaves_the_rest():
    boxes = CenterBoxes(torch.rand(3, 8, 2), torch.rand(3, 8, 2))
    places = Places(torch.rand(3, 2, 4), boxes)
    chosen = select((places, None, "name", torch.arange(3)), torch.tensor([2, 0]))
    assert isinstance(chosen[0], Places) and isinstance(chosen[0].boxes, CenterBoxes)
    assert torch.equal(chosen[0].logits, places.logits[[2, 0]])
    assert torch.equal(chosen[0].boxes.center, boxes.center[[2, 0]])
    assert torch.equal(chosen[0].boxes.size, boxes.size[[2, 0]])
    assert chosen[1:3] == (None, "name")
    assert chosen[3].tolist() == [2, 0]
    assert len(places.logits) == 3  # the container itself stays as it is


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


def test_stacked_steps_have_time_as_second_axis_also_in_places(make_proposal):
    steps: list[Proposal] = []
    for _ in range(3):
        places = Places(torch.rand(2, 4, 6), CenterBoxes(torch.rand(2, 24, 2), torch.rand(2, 24, 2)))
        steps.append(make_proposal(torch.rand(2, 2), torch.rand(2, 2) + 1, places=places))
    stacked = stack_steps(steps)
    assert stacked.places.logits.shape == (2, 3, 4, 6)
    for t, step in enumerate(steps):
        assert torch.equal(stacked.boxes.center[:, t], step.boxes.center)
        assert torch.equal(stacked.places.logits[:, t], step.places.logits)
        assert torch.equal(stacked.places.boxes.size[:, t], step.places.boxes.size)


def test_places_that_no_step_has_are_none_in_the_stack(make_proposal):
    step = make_proposal(torch.rand(2, 2), torch.rand(2, 2) + 1)
    assert stack_steps([step, step]).places is None
    one_box = make_proposal(torch.rand(2, 2), torch.rand(2, 2) + 1, places=Places(torch.rand(2, 4, 6), None))
    assert stack_steps([one_box, one_box]).places.boxes is None
