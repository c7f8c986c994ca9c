"""The losses of a sequence: which terms there are, what is matched, and images without objects."""

import itertools
import math

import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.paper.criterion import BoxCriterion, MaskCriterion
from rec_attend_d2.modeling.paper.sequence import StepSequence
from rec_attend_d2.modeling.paper.targets import Targets

MASK_LOSSES = ["iou", "bce", "weighted_coverage"]
BOX_LOSSES = ["iou", "bce", "weighted_coverage", "mse", "huber"]


@pytest.fixture
def random_sequence(make_sequence):
    """A function from the number of images to a sequence with gradients to masks, scores, box maps and boxes."""

    def make(batch: int) -> tuple[StepSequence, list[torch.Tensor]]:
        generator = torch.Generator().manual_seed(batch)
        masks, box_maps = (torch.rand(2, batch, 3, 32, 48, generator=generator) * 0.8 + 0.1).unbind()
        scores = torch.rand(batch, 3, generator=generator) * 0.8 + 0.1
        center = torch.rand(batch, 3, 2, generator=generator) * 20 + 8
        size = torch.rand(batch, 3, 2, generator=generator) * 20 + 5
        leaves = [tensor.clone().requires_grad_() for tensor in (masks, scores, box_maps, center, size)]
        return make_sequence(leaves[0], leaves[1], CenterBoxes(leaves[3], leaves[4]), leaves[2]), leaves

    return make


def mask_criterion(tiny_cfg, **options) -> MaskCriterion:
    return MaskCriterion(tiny_cfg({f"LOSS.{key}": value for key, value in options.items()}))


def test_names_and_weights_of_the_terms(tiny_cfg, make_targets, random_sequence):
    targets, (sequence, _) = make_targets([2, 1]), random_sequence(2)
    plain = mask_criterion(tiny_cfg)(sequence, targets).losses
    weighted = mask_criterion(tiny_cfg, SCORE_WEIGHT=5.0)(sequence, targets).losses
    assert list(plain) == ["loss_mask", "loss_box", "loss_score"]
    for name, factor in (("loss_mask", 1), ("loss_box", 1), ("loss_score", 5)):
        assert plain[name].item() != 0
        assert weighted[name].item() == pytest.approx(factor * plain[name].item(), rel=1e-5)


def test_stage_b_has_no_mask_term(tiny_cfg, make_targets, make_sequence):
    targets = make_targets([2, 1])
    output = BoxCriterion(tiny_cfg())(make_sequence(targets.box_maps, torch.full((2, 3), 0.5)), targets)
    assert list(output.losses) == ["loss_box", "loss_score"]
    assert output.mask is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_perfect_prediction_is_perfect_in_any_order(tiny_cfg, make_targets, make_sequence, order: tuple[int, ...]):
    targets = make_targets([3])
    steps = list(order)
    boxes = CenterBoxes(targets.boxes.center[:, steps], targets.boxes.size[:, steps])
    sequence = make_sequence(targets.masks[:, steps], torch.ones(1, 3), boxes, targets.box_maps[:, steps])
    output = mask_criterion(tiny_cfg)(sequence, targets)
    assert output.losses["loss_mask"].item() == pytest.approx(-1, abs=5e-4)
    assert output.losses["loss_box"].item() == pytest.approx(-1, abs=5e-4)
    assert output.losses["loss_score"].item() == pytest.approx(0, abs=1e-4)
    expected = torch.zeros(3, 3)
    expected[range(3), steps] = 1
    assert torch.equal(output.mask.match[0], expected) and torch.equal(output.box.match[0], expected)


def test_steps_beyond_the_number_of_objects_do_not_change_mask_and_box_loss(tiny_cfg, make_targets, random_sequence):
    targets, (sequence, leaves) = make_targets([1]), random_sequence(1)
    losses = mask_criterion(tiny_cfg)(sequence, targets).losses
    (losses["loss_mask"] + losses["loss_box"]).backward()
    masks, _, box_maps = leaves[:3]
    assert (masks.grad[0, 0] != 0).any() and (box_maps.grad[0, 0] != 0).any()
    assert (masks.grad[0, 1:] == 0).all() and (box_maps.grad[0, 1:] == 0).all()


def test_scores_follow_the_mask_matching_in_the_full_model_and_the_box_matching_in_stage_b(
    tiny_cfg, make_targets, make_sequence
):
    class FirstOverlapping:
        """Matches a step if its best overlap is above one half."""

        def __call__(self, overlap: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            return (overlap > 0.5).to(overlap)

    targets = make_targets([2])
    masks, box_maps = torch.zeros(2, 1, 3, 32, 48).unbind()
    masks[0, 1] = targets.masks[0, 0]
    box_maps[0, 0] = targets.box_maps[0, 0]
    scores = torch.tensor([[0.3, 0.2, 0.4]])
    sequence = make_sequence(masks, scores, box_maps=box_maps)

    def score_term(criterion: BoxCriterion) -> float:
        criterion.matcher = FirstOverlapping()
        return criterion(sequence, targets).losses["loss_score"].item()

    # No step may score above what follows it, so a step without object is judged by 0.4 in each case. In the full
    # model step 1 is the object, judged by the lowest so far, 0.2; in stage B it is step 0, judged by its 0.3.
    assert score_term(MaskCriterion(tiny_cfg())) == pytest.approx(-(math.log(0.2) + 2 * math.log(0.6)) / 3, rel=1e-3)
    assert score_term(BoxCriterion(tiny_cfg())) == pytest.approx(-(math.log(0.3) + 2 * math.log(0.6)) / 3, rel=1e-3)


@pytest.mark.parametrize(("overlap", "expected"), [("maps", -1.0), ("corners", 0.0)])
def test_box_overlap_is_of_maps_or_corners(tiny_cfg, make_targets, make_sequence, overlap: str, expected: float):
    targets = make_targets([2])
    far_away = CenterBoxes(torch.full((1, 3, 2), 500.0), torch.full((1, 3, 2), 4.0))
    sequence = make_sequence(targets.masks, torch.full((1, 3), 0.5), far_away, targets.box_maps)
    losses = mask_criterion(tiny_cfg, BOX_OVERLAP=overlap)(sequence, targets).losses
    assert losses["loss_box"].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("overlap", ["maps", "corners"])
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@pytest.mark.parametrize("counts", [[0, 0], [2, 0]], ids=["none", "one without"])
def test_images_without_objects(
    tiny_cfg, make_targets, random_sequence, overlap: str, box_loss: str, counts: list[int]
):
    targets, (sequence, leaves) = make_targets(counts), random_sequence(2)
    mask_loss = MASK_LOSSES[BOX_LOSSES.index(box_loss) % 3]
    losses = mask_criterion(tiny_cfg, MASK=mask_loss, BOX=box_loss, BOX_OVERLAP=overlap)(sequence, targets).losses
    sum(losses.values()).backward()
    for loss in losses.values():
        assert torch.isfinite(loss)
    for leaf in leaves:
        if leaf.grad is not None:
            assert torch.isfinite(leaf.grad).all()
    if sum(counts) == 0:
        assert losses["loss_mask"] == losses["loss_box"] == 0
    # The scores of the image without objects are pushed down: gradient descent lowers the highest.
    assert (leaves[1].grad[1] >= 0).all() and (leaves[1].grad[1] > 0).any()


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_true_boxes_without_any_padding(tiny_cfg, rectangle_masks, random_sequence, box_loss: str):
    # BOX_PADDING_PIXELS = 0: empty slots have boxes of no size.
    targets, (sequence, leaves) = Targets.from_masks(rectangle_masks([2, 1]), 0.2, 0.0), random_sequence(2)
    loss = mask_criterion(tiny_cfg, BOX=box_loss)(sequence, targets).losses["loss_box"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


def test_losses_do_not_depend_on_the_order_of_true_instances(tiny_cfg, make_targets, random_sequence):
    targets, (sequence, _) = make_targets([3, 3]), random_sequence(2)
    shuffled = Targets.from_masks(targets.masks[:, [2, 0, 1]], 0.2, 3.0)
    for mask_loss, box_loss in zip(["iou", "bce", "weighted_coverage"] * 2, BOX_LOSSES, strict=False):
        criterion = mask_criterion(tiny_cfg, MASK=mask_loss, BOX=box_loss)
        before, after = criterion(sequence, targets).losses, criterion(sequence, shuffled).losses
        for name in before:
            torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-5)
