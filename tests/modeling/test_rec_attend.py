"""The trunk alone, with a model that claims one pixel a step."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling import RecurrentAttention
from rec_attend_d2.modeling.rec_attend import autocast
from rec_attend_d2.modeling.steps import Cut, ExtraMaps, Feeder, Proposal, Scan, Step, StepInputs, Where

SIDE = 8


@dataclass
class Log:
    """Images in the batch and number of every step."""

    sizes: list[int]
    numbers: list[int]


class PixelByPixel(RecurrentAttention):
    """Claims the first pixel brighter than one half that is not claimed, and nothing where there is none."""

    def __init__(self, **changes: Any):
        arguments: dict[str, Any] = {"preprocessor": Nothing(), "stop_early": True, "stop_threshold": 0.5}
        arguments |= {"max_steps": 10, "recompute": False, "precision": ""}
        arguments |= {"image_size": (SIDE, SIDE), "pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3}
        super().__init__(**{**arguments, **changes})
        self.log = Log([], [])

    def look(self, inputs: StepInputs) -> tuple[Proposal, Scan]:
        self.log.sizes.append(len(inputs.image))
        self.log.numbers.append(inputs.number)
        left = ((inputs.image[:, 0] > 0.5) & (inputs.memory < 0.5)).flatten(1).float()
        pixel = left.argmax(1)
        center = torch.stack([pixel // SIDE, pixel % SIDE], dim=1).float()
        boxes = CenterBoxes(center, torch.ones_like(center))
        return Proposal(torch.arange(len(left)), boxes, left.amax(1, keepdim=True)), Scan()

    def cut_out(self, inputs: StepInputs, proposal: Proposal, where: Where) -> Cut:
        pixel = (where.boxes.center[:, 0] * SIDE + where.boxes.center[:, 1]).long()
        return Cut(nn.functional.one_hot(pixel, SIDE**2).float().view(-1, SIDE, SIDE) * proposal.hidden[..., None])

    def decide(self, proposal: Proposal, cut: Cut) -> tuple[Tensor, None]:
        return proposal.hidden[:, 0] * 0.9, None

    def remember(self, inputs: StepInputs, step: Step, feeder: Feeder) -> Tensor:
        step.claimed = step.score >= self.stop_threshold
        return torch.maximum(inputs.memory, feeder.claimed(step.cut.mask, inputs))

    def instances(self, steps: list[Step], extra: ExtraMaps, entry: dict) -> Instances:
        scores = torch.cat([step.score[step.claimed] for step in steps])
        return Instances(self.original_size(entry), scores=scores)

    def losses(self, batched_inputs: list[dict]) -> Any:
        return {"loss": torch.zeros(())}, lambda: {}


class Nothing(nn.Module):
    """A preprocessor that adds nothing."""

    def forward(self, images: Tensor, batched_inputs: list[dict]) -> ExtraMaps:
        return ExtraMaps()


def batch_of(counts: list[int]) -> list[dict]:
    """Images with so many bright pixels."""
    batch = []
    for count in counts:
        image = torch.zeros(3, SIDE * SIDE, dtype=torch.uint8)
        image[:, 3 : 3 + 2 * count : 2] = 200
        batch.append({"image": image.view(3, SIDE, SIDE)})
    return batch


def test_images_leave_the_batch_after_their_first_step_that_claims_nothing():
    model = PixelByPixel().eval()
    found, _ = model.run(batch_of([2, 0, 4]))
    # The step that claims nothing is the last one.
    assert [[bool(step.claimed) for step in steps] for steps in found] == [
        [True, True, False],
        [False],
        [True, True, True, True, False],
    ]
    assert model.log.sizes == [3, 2, 2, 1, 1] and model.log.numbers == [0, 1, 2, 3, 4]
    assert [len(output["instances"]) for output in model(batch_of([2, 0, 4]))] == [2, 0, 4]


def test_every_step_sees_what_those_before_it_claimed():
    (steps,), _ = PixelByPixel().eval().run(batch_of([3]))
    for number, step in enumerate(steps):
        assert step.memory.sum() == number and step.memory.shape == (1, SIDE, SIDE)
        torch.testing.assert_close(
            step.memory, sum((s.cut.mask for s in steps[:number]), torch.zeros_like(step.memory))
        )


@pytest.mark.parametrize(("changes", "steps"), [({"max_steps": 2}, 2), ({"stop_early": False}, 10)])
def test_it_ends_with_the_last_step_that_is_allowed(changes: dict, steps: int):
    model = PixelByPixel(**changes).eval()
    found, _ = model.run(batch_of([3, 1]))
    assert len(found[0]) == steps and model.log.numbers == list(range(steps))


def test_a_feeder_decides_where_to_look_and_what_is_remembered():
    class LastPixel(Feeder):
        def where(self, proposal: Proposal, inputs: StepInputs) -> Where:
            return Where(
                proposal.image, CenterBoxes(torch.full_like(proposal.boxes.center, SIDE - 1.0), proposal.boxes.size)
            )

        def claimed(self, mask: Tensor, inputs: StepInputs) -> Tensor:
            return mask * 0.25

    model = PixelByPixel().eval()
    taken = model.unroll(model.first_inputs(batch_of([1])), 2, LastPixel())
    second = taken[1][1]
    expected = torch.zeros(1, SIDE, SIDE)
    expected[0, -1, -1] = 0.25
    assert torch.equal(second.memory, expected) and second.where.boxes.center.tolist() == [[SIDE - 1.0] * 2]
    assert second.proposal.boxes.center.tolist() == [[0.0, 3.0]]


@pytest.mark.parametrize("precision", ["float16", "half"])
def test_a_precision_that_the_device_lacks(precision: str):
    with pytest.raises(ValueError, match=rf"TEST.AUTOCAST is '{precision}'.*\['bfloat16'\]"):
        autocast(torch.device("cpu"), precision)
