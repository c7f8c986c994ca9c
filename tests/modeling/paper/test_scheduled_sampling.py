"""Scheduled sampling: the schedule as a table, the choice of truth, what is fed and its noise."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.paper.attention import GaussianAttention
from rec_attend_d2.modeling.paper.scheduled_sampling import (
    TRUTH_CHOICES,
    SampledTruth,
    ScheduledSampling,
    TrueMemory,
    sampling_probability,
)
from rec_attend_d2.modeling.paper.sequence import BoxProposal
from rec_attend_d2.modeling.paper.targets import Targets
from rec_attend_d2.modeling.steps import ExtraMaps, Feeder, StepInputs

ALWAYS, NEVER = 1e12, -1e12  # offsets for which the probability is 1 and 0
PADDING_RATIO, PADDING_PIXELS = 0.2, 3.0


def make_sampling(kind: type[ScheduledSampling] = ScheduledSampling, **options) -> ScheduledSampling:
    arguments = {
        "enabled": True,
        "decay_steps": 100,
        "box_offset": ALWAYS,
        "mask_offset": ALWAYS,
        "scale_with_step": False,
        "truth_choice": "unclaimed",
        "box_overlap": "corners",
        "center_noise": 0.0,
        "padding_noise": 0.0,
        "mask_noise": 0.0,
    }
    return kind(**{**arguments, **options})


def at_step(number: int) -> StepInputs:
    """Of the inputs a feeder reads the step's number alone."""
    nothing = torch.zeros(0)
    return StepInputs(nothing, nothing, ExtraMaps(), number)


def boxes_of(feeder: Feeder, proposal: BoxProposal, number: int) -> CenterBoxes:
    """Where a feeder lets a step look."""
    where = feeder.where(proposal, at_step(number))
    assert torch.equal(where.image, proposal.image)
    return where.boxes


@pytest.fixture
def attention() -> GaussianAttention:
    return GaussianAttention(patch_size=(16, 24), variance="from_size", learn_gains=False)


@pytest.fixture
def propose(make_targets, make_proposal):
    """A function from targets and the instance that each image's box lies on (a little smaller) to a proposal."""

    def make(targets: Targets, instances: list[int], requires_grad: bool = False) -> BoxProposal:
        index = torch.arange(len(instances))
        center = targets.boxes.center[index, instances].clone().requires_grad_(requires_grad)
        size = (targets.boxes.size[index, instances] * 0.9).requires_grad_(requires_grad)
        return make_proposal(center, size)

    return make


@pytest.mark.parametrize(
    ("iteration", "step", "decay", "offset", "scale", "expected"),
    [
        (0, 0, 700, 0, True, 1.0),
        (700, 0, 700, 0, True, 0.5),
        (1400, 0, 700, 0, True, 0.25),
        (1400, 1, 700, 0, True, 0.25 * 2.3862944),  # 1 + log 4
        (2100, 5, 700, 0, True, 0.125 * 3.7725887),  # 1 + log 16
        (700, 1, 700, 0, True, 1.0),  # cut from 1.19
        (2100, 5, 700, 0, False, 0.125),
        (3000, 0, 700, 3000, True, 1.0),
        (3700, 0, 700, 3000, True, 0.5),
        (0, 0, 700, -1400, True, 0.25),
        (0, 20, 700, -50000, True, 1.58e-21),  # the CVPPP recipe: never
    ],
)
def test_probability_table(iteration: int, step: int, decay: float, offset: float, scale: bool, expected: float):
    assert sampling_probability(iteration, step, decay, offset, scale) == pytest.approx(expected, rel=1e-2, abs=1e-20)
    if expected > 1e-6:
        assert sampling_probability(iteration, step, decay, offset, scale) == pytest.approx(expected, rel=1e-6)


def test_probability_falls_with_iterations_and_rises_with_steps():
    table = np.array([[sampling_probability(n, t, 50, 100) for t in range(6)] for n in range(0, 2000, 25)])
    assert ((table >= 0) & (table <= 1)).all()
    assert (np.diff(table, axis=0) <= 0).all() and (np.diff(table, axis=1) >= 0).all()
    assert (table[:5] == 1).all() and (table[-1] < 1e-4).all()


def test_schedule_of_the_config(tiny_cfg):
    overrides = {"DECAY_STEPS": 10, "BOX_OFFSET": -10, "MASK_OFFSET": 5, "SCALE_WITH_STEP": True}
    sampling = ScheduledSampling(tiny_cfg({f"SCHEDULED_SAMPLING.{key}": value for key, value in overrides.items()}))
    sampling.iteration = 25
    assert sampling.box_probability(0) == pytest.approx(0.5**3.5)
    assert sampling.mask_probability(1) == pytest.approx(0.25 * (1 + math.log(4)))


def test_disabled_means_own_predictions(tiny_cfg, make_targets, attention: GaussianAttention):
    sampling = ScheduledSampling(tiny_cfg({"SCHEDULED_SAMPLING.ENABLED": False}))
    assert sampling.box_probability(0) == sampling.mask_probability(5) == 0
    assert type(sampling.start(make_targets([1]), attention)) is Feeder


def choose(name: str, overlap: list[float], taken: list[float], valid: list[bool]) -> list[float]:
    function = TRUTH_CHOICES[name]
    return function(torch.tensor([overlap]), torch.tensor([taken]), torch.tensor([valid]))[0].tolist()


@pytest.mark.parametrize(
    ("overlap", "taken", "valid", "expected"),
    [
        ([0.1, 0.7, 0.3], [0.0, 0.0, 0.0], [True, True, True], [0, 1, 0]),
        ([0.1, 0.7, 0.3], [0.0, 1.0, 0.0], [True, True, True], [0, 0, 1]),
        ([0.1, 0.7, 0.9], [0.0, 1.0, 0.0], [True, True, False], [1, 0, 0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [True, True, True], [1, 0, 0]),  # the largest
        ([0.0, 0.0, 0.9], [1.0, 0.0, 0.0], [True, True, False], [0, 1, 0]),
        ([0.1, 0.7, 0.9], [1.0, 1.0, 0.0], [True, True, False], [0, 0, 0]),
        ([0.1, 0.7, 0.9], [0.0, 0.0, 0.0], [False, False, False], [0, 0, 0]),
    ],
    ids=["best", "best is taken", "best is no object", "no overlap", "none of the rest", "all taken", "no objects"],
)
def test_unclaimed_truth(overlap: list[float], taken: list[float], valid: list[bool], expected: list[float]):
    assert choose("unclaimed", overlap, taken, valid) == expected


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ([0.1, 0.7, 0.3], [0, 1, 0]),
        ([0.7, 0.7, 0.3], [0.5, 0.5, 0]),
        ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_any_truth_shares_ties_and_minds_neither_the_taken_nor_the_empty(overlap: list[float], expected: list[float]):
    assert choose("any", overlap, [1.0, 1.0, 0.0], [True, True, False]) == pytest.approx(expected)


def test_truth_is_fed_at_probability_one(make_targets, propose, attention: GaussianAttention):
    targets = make_targets([3, 2])
    feeder = make_sampling().start(targets, attention)
    boxes = boxes_of(feeder, propose(targets, [2, 0]), 0)
    torch.testing.assert_close(boxes.center, torch.stack([targets.boxes.center[0, 2], targets.boxes.center[1, 0]]))
    torch.testing.assert_close(boxes.size, torch.stack([targets.boxes.size[0, 2], targets.boxes.size[1, 0]]))
    claimed = feeder.claimed(torch.rand(2, 32, 48), at_step(0))
    assert torch.equal(claimed, torch.stack([targets.masks[0, 2], targets.masks[1, 0]]))


def test_predictions_are_fed_at_probability_zero(make_targets, propose, attention: GaussianAttention):
    targets = make_targets([3, 2])
    feeder = make_sampling(box_offset=NEVER, mask_offset=NEVER).start(targets, attention)
    proposal, mask = propose(targets, [2, 0]), torch.rand(2, 32, 48)
    boxes = boxes_of(feeder, proposal, 0)
    assert torch.equal(boxes.center, proposal.boxes.center) and torch.equal(boxes.size, proposal.boxes.size)
    assert torch.equal(feeder.claimed(mask, at_step(0)), mask)


@pytest.mark.parametrize(("box_offset", "mask_offset"), [(ALWAYS, NEVER), (NEVER, ALWAYS)])
def test_boxes_and_masks_have_schedules_of_their_own(
    make_targets, propose, attention: GaussianAttention, box_offset: float, mask_offset: float
):
    targets = make_targets([3])
    feeder = make_sampling(box_offset=box_offset, mask_offset=mask_offset).start(targets, attention)
    proposal, mask = propose(targets, [1]), torch.rand(1, 32, 48)
    boxes, claimed = boxes_of(feeder, proposal, 0), feeder.claimed(mask, at_step(0))
    assert torch.equal(boxes.size, proposal.boxes.size) == (box_offset == NEVER)
    assert torch.equal(claimed, mask) == (mask_offset == NEVER)


@pytest.mark.parametrize("box_overlap", ["corners", "maps"])
def test_no_instance_is_fed_twice_and_nothing_when_all_are_taken(
    make_targets, propose, attention: GaussianAttention, box_overlap: str
):
    targets = make_targets([3, 1])
    feeder = make_sampling(box_overlap=box_overlap).start(targets, attention)
    fed: list[Tensor] = []
    prediction = torch.full((2, 32, 48), 0.25)
    for step in range(4):
        proposal = propose(targets, [1, 0])  # always the same place
        boxes = boxes_of(feeder, proposal, step)
        fed.append(feeder.claimed(prediction, at_step(step)))
        took_prediction = [step >= 3, step >= 1]
        for index in range(2):
            assert torch.equal(boxes.size[index], proposal.boxes.size[index]) == took_prediction[index]
            assert torch.equal(fed[-1][index], prediction[index]) == took_prediction[index]
    assert torch.equal(fed[0][0], targets.masks[0, 1])
    first_image = torch.stack([fed[step][0] for step in range(3)])
    assert torch.equal(first_image.sum(0), targets.masks[0].sum(0))


def test_an_instance_counts_as_taken_even_if_the_prediction_was_fed(
    make_targets, propose, attention: GaussianAttention
):
    targets = make_targets([3])
    sampling = make_sampling(box_offset=NEVER, mask_offset=NEVER)
    feeder = sampling.start(targets, attention)
    boxes_of(feeder, propose(targets, [1]), 0)
    sampling.mask_offset = ALWAYS
    boxes_of(feeder, propose(targets, [1]), 1)
    claimed = feeder.claimed(torch.zeros(1, 32, 48), at_step(1))[0]
    assert any(torch.equal(claimed, targets.masks[0, n]) for n in (0, 2))


def test_any_feeds_an_instance_again(make_targets, propose, attention: GaussianAttention):
    targets = make_targets([3])
    feeder = make_sampling(truth_choice="any").start(targets, attention)
    for step in range(3):
        boxes_of(feeder, propose(targets, [1]), step)
        assert torch.equal(feeder.claimed(torch.zeros(1, 32, 48), at_step(step))[0], targets.masks[0, 1])


def test_images_draw_independently_with_the_scheduled_probability(make_proposal):
    count = 4000
    masks = torch.zeros(count, 1, 4, 4)
    masks[:, :, 1:3, 1:3] = 1
    attention = GaussianAttention(patch_size=(2, 2), variance="unit", learn_gains=False)
    sampling = make_sampling(box_offset=0, mask_offset=50)
    sampling.iteration = 150  # 0.5^1.5 and 0.5
    feeder = sampling.start(Targets.from_masks(masks, 0.2, 1.0), attention)
    boxes = boxes_of(feeder, make_proposal(torch.full((count, 2), 1.0), torch.full((count, 2), 9.0)), 0)
    true_box = boxes.size[:, 0] != 9
    true_mask = feeder.claimed(torch.full((count, 4, 4), 0.5), at_step(0))[:, 1, 1] == 1
    for drawn, probability in (
        (true_box, 0.5**1.5),
        (true_mask, 0.5),
        (true_box & true_mask, 0.5**2.5),
    ):
        tolerance = 4 * math.sqrt(probability * (1 - probability) / count)
        assert drawn.float().mean().item() == pytest.approx(probability, abs=tolerance)


def test_gradients_flow_through_predictions_only(make_targets, propose, attention: GaussianAttention):
    targets = make_targets([3, 0])  # nothing to feed to the second image
    feeder = make_sampling().start(targets, attention)
    proposal = propose(targets, [1, 0], requires_grad=True)
    mask = torch.rand(2, 32, 48, requires_grad=True)
    boxes = boxes_of(feeder, proposal, 0)
    (boxes.center.sum() + boxes.size.sum() + feeder.claimed(mask, at_step(0)).sum()).backward()
    assert proposal.boxes.center.grad.tolist() == [[0, 0], [1, 1]]
    assert mask.grad[0].sum() == 0 and (mask.grad[1] == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_boxes_stays_within_bounds(make_targets, seed: int):
    torch.manual_seed(seed)
    targets = make_targets([3] * 40)
    sampling = make_sampling(center_noise=0.05, padding_noise=0.1)
    noisy = sampling.noisy_boxes(targets)
    ys = [(17, 29), (2, 15), (3, 11)]
    for image in range(0, 40, 2):  # odd images start a row later
        for n, (first, last) in enumerate(ys):
            length, height = last - first, noisy.size[image, n, 0].item()
            least = length + 2 * max((PADDING_RATIO - 0.1) * length, PADDING_PIXELS)
            most = length + 2 * max((PADDING_RATIO + 0.1) * length, PADDING_PIXELS)
            assert least - 1e-4 <= height <= most + 1e-4
            assert abs(noisy.center[image, n, 0].item() - (first + last) / 2) <= 0.05 * height + 1e-4
    moved = (noisy.center - targets.boxes.center) / noisy.size
    assert moved.abs().max() > 0.045 and moved.mean().abs() < 0.01
    assert noisy.size.std(0)[0].max() > 0.1


def test_boxes_are_fed_with_one_draw_of_noise_per_batch(make_targets, propose, attention: GaussianAttention):
    targets = make_targets([3])
    feeder = make_sampling(truth_choice="any", center_noise=0.05, padding_noise=0.1).start(targets, attention)
    first, second = (boxes_of(feeder, propose(targets, [1]), step) for step in range(2))
    assert torch.equal(first.center, second.center) and torch.equal(first.size, second.size)
    off = (first.center - targets.boxes.center[:, 1]).abs()
    assert (off > 0).all() and (off <= 0.05 * first.size).all()
    # The instance is 13 high and 16 wide, padded by a tenth to three tenths, but at least 3 pixels.
    assert 13 + 6 <= first.size[0, 0] <= 13 + 2 * 3.9
    assert 16 + 6 <= first.size[0, 1] <= 16 + 2 * 4.8


def test_without_noise_boxes_are_the_padded_true_ones(make_targets):
    targets = make_targets([3, 1])
    exact = make_sampling().noisy_boxes(targets)
    torch.testing.assert_close(exact.center, targets.boxes.center)
    torch.testing.assert_close(exact.size, targets.boxes.size)


def test_noise_of_masks_stays_within_bounds(make_targets, propose, attention: GaussianAttention):
    targets = make_targets([1])
    feeder = make_sampling(mask_noise=0.3).start(targets, attention)
    boxes_of(feeder, propose(targets, [0]), 0)
    claimed = feeder.claimed(torch.zeros(1, 32, 48), at_step(0))[0]
    inside = claimed[targets.masks[0, 0] > 0]
    assert (claimed[targets.masks[0, 0] == 0] == 0).all()
    assert inside.min() >= 0.7 and inside.max() <= 1
    assert inside.min() < 0.72 and inside.max() > 0.98
    assert inside.mean().item() == pytest.approx(0.85, abs=0.02)


@pytest.mark.parametrize("enabled", [True, False])
def test_stage_b_feeds_masks_always_and_boxes_never(make_targets, propose, attention: GaussianAttention, enabled: bool):
    sampling = make_sampling(TrueMemory, enabled=enabled, box_offset=ALWAYS, mask_offset=NEVER)
    sampling.iteration = 10**6
    targets = make_targets([2])
    feeder = sampling.start(targets, attention)
    proposal = propose(targets, [1])
    boxes = boxes_of(feeder, proposal, 0)
    assert torch.equal(boxes.size, proposal.boxes.size)
    assert torch.equal(feeder.claimed(torch.zeros(1, 32, 48), at_step(0))[0], targets.masks[0, 1])


def test_own_predictions_are_passed_on(make_targets, propose):
    proposal, mask = propose(make_targets([1]), [0]), torch.rand(1, 32, 48)
    assert boxes_of(Feeder(), proposal, 0) is proposal.boxes
    assert Feeder().claimed(mask, at_step(0)) is mask


@pytest.mark.parametrize(("box_overlap", "chosen"), [("maps", 0), ("corners", 1)])
def test_the_truth_is_chosen_by_the_overlap_of_the_config(
    tiny_cfg, make_targets, make_proposal, box_overlap: str, chosen: int
):
    cfg = tiny_cfg({"LOSS.BOX_OVERLAP": box_overlap, "SCHEDULED_SAMPLING.BOX_OFFSET": 10**9})
    targets = make_targets([3])
    # At the corners of the second object, with a gain so low that its box map is the same everywhere, which overlaps
    # the largest object most.
    proposal = make_proposal(
        targets.boxes.center[:, 1], targets.boxes.size[:, 1], box_map_log_gain=torch.tensor([-1e4])
    )
    feeder = ScheduledSampling(cfg).start(targets, GaussianAttention(cfg))
    assert isinstance(feeder, SampledTruth)
    boxes_of(feeder, proposal, 0)
    claimed = feeder.claimed(torch.zeros(1, 32, 48), at_step(0))
    assert torch.equal((claimed > 0).float(), targets.masks[:, chosen])
