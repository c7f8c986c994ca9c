"""Loss functions against python loops and torch's own losses, and by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.layers.step_norm import PerStepBatchNorm
from rec_attend_d2.modeling.paper.losses import (
    Comparison,
    bce_loss,
    box_corner_overlap,
    box_huber_loss,
    box_map_overlap,
    box_mse_loss,
    iou_loss,
    matched_mean,
    score_loss,
    weight_decay_loss,
    weighted_coverage,
    weighted_coverage_loss,
)

HEIGHT, WIDTH = 32, 48


@pytest.fixture
def compare(make_targets, make_sequence):
    """A function from object counts, matched (step, instance) pairs per image and boxes to a comparison."""

    def make(counts: list[int], pairs: list[list[tuple[int, int]]], boxes: CenterBoxes | None = None) -> Comparison:
        targets = make_targets(counts)
        generator = torch.Generator().manual_seed(0)
        pred = torch.rand(targets.masks.shape, generator=generator) * 0.9 + 0.05
        overlap = torch.rand(len(counts), 3, 3, generator=generator)
        match = torch.zeros(len(counts), 3, 3)
        for index, matched in enumerate(pairs):
            for step, instance in matched:
                match[index, step, instance] = 1
        sequence = make_sequence(pred, torch.full((len(counts), 3), 0.5), boxes)
        return Comparison(pred, targets.masks, overlap, match, sequence, targets)

    return make


PAIRS = [[(0, 1), (1, 0)], [], [(0, 2), (1, 0), (2, 1)]]


def mean_of_pairs(value_of_pair, pairs: list[list[tuple[int, int]]]) -> float:
    """Mean over images of the mean over pairs; 0 where there is none."""
    means = []
    for index, matched in enumerate(pairs):
        values = [value_of_pair(index, step, instance) for step, instance in matched]
        means.append(sum(values) / len(values) if values else 0.0)
    return sum(means) / len(means)


def test_matched_mean_by_hand():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]], [[9.0, 9.0], [9.0, 9.0]]])
    match = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert matched_mean(values, match).item() == pytest.approx((2.5 + 8 + 0) / 3)


def test_iou_loss_is_minus_the_mean_overlap_of_matched_pairs(compare):
    comparison = compare([2, 0, 3], PAIRS)
    expected = -mean_of_pairs(lambda b, t, n: comparison.overlap[b, t, n].item(), PAIRS)
    assert iou_loss(comparison).item() == pytest.approx(expected, rel=1e-5)


def test_bce_loss_is_torchs_of_every_matched_pair(compare):
    comparison = compare([2, 0, 3], PAIRS)

    def pair_loss(b: int, t: int, n: int) -> float:
        return F.binary_cross_entropy(comparison.pred_maps[b, t], comparison.gt_maps[b, n]).item()

    assert bce_loss(comparison).item() == pytest.approx(mean_of_pairs(pair_loss, PAIRS), rel=1e-3)


def test_bce_loss_stays_finite_for_sure_predictions(compare):
    comparison = compare([2], [[(0, 0), (1, 1)]])
    comparison.pred_maps = (1 - comparison.gt_maps).requires_grad_()
    loss = bce_loss(comparison)
    assert loss.item() == pytest.approx(-math.log(1e-5), rel=1e-3)
    loss.backward()
    assert torch.isfinite(comparison.pred_maps.grad).all()
    comparison.pred_maps = comparison.gt_maps
    assert bce_loss(comparison).item() == pytest.approx(0, abs=1e-4)


def test_weighted_coverage_by_hand():
    gt_maps = torch.zeros(2, 3, 4, 5)
    gt_maps[0, 0, :3] = 1  # 15 pixels
    gt_maps[0, 1, 3:] = 1  # 5 pixels
    overlap = torch.tensor([[[0.1, 0.8, 1.0], [0.6, 0.2, 1.0]], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]])
    # The third slot and the second image hold nothing.
    expected = (15 / 20 * 0.6 + 5 / 20 * 0.8) / 2
    assert weighted_coverage(overlap, gt_maps).item() == pytest.approx(expected)


def test_weighted_coverage_loss_needs_no_matching(compare):
    comparison = compare([2, 0, 3], [[], [], []])
    areas = comparison.gt_maps.sum((2, 3)).numpy()
    best = comparison.overlap.numpy().max(1)
    per_image = [(best[b] * areas[b]).sum() / max(areas[b].sum(), 1) for b in range(3)]
    assert weighted_coverage_loss(comparison).item() == pytest.approx(-np.mean(per_image), rel=1e-5)


@pytest.mark.parametrize("loss", [box_mse_loss, box_huber_loss])
def test_box_regression_is_zero_for_true_boxes(compare, make_targets, loss):
    true = make_targets([3]).boxes
    order = [2, 0, 1]
    boxes = CenterBoxes(true.center[:, order], true.size[:, order])
    pairs = [(step, instance) for step, instance in enumerate(order)]
    assert loss(compare([3], [pairs], boxes)).item() == pytest.approx(0, abs=1e-10)


def test_box_regression_by_hand(compare, make_targets):
    true = make_targets([1, 1]).boxes
    # First image: one centre off by H / 4, which is 0.5 normalised, and the height e times too large.
    # Second image: the width exp(3) times too large, where Huber is linear.
    center = true.center.clone()
    center[0, 1, 0] = true.center[0, 0, 0] + HEIGHT / 4
    center[0, 1, 1] = true.center[0, 0, 1]
    size = true.size.clone()
    size[0, 1] = true.size[0, 0] * torch.tensor([math.e, 1.0])
    size[1, 0, 1] = true.size[1, 0, 1] * math.exp(3)
    comparison = compare([1, 1], [[(1, 0)], [(0, 0)]], CenterBoxes(center, size))
    mse = ((0.5**2 + 1**2) / 4 + 3**2 / 4) / 2
    huber = ((0.5 * 0.5**2 + 0.5 * 1**2) / 4 + (3 - 0.5) / 4) / 2
    assert box_mse_loss(comparison).item() == pytest.approx(mse, rel=1e-5)
    assert box_huber_loss(comparison).item() == pytest.approx(huber, rel=1e-5)


def test_box_map_overlap_compares_with_maps_of_padded_boxes(make_targets, make_proposal):
    targets = make_targets([2, 0])
    proposals = make_proposal(targets.boxes.center, targets.boxes.size)
    overlap = box_map_overlap(proposals, targets.box_maps, targets)
    maps = targets.box_maps[0].bool()
    between = (maps[0] & maps[1]).sum() / (maps[0] | maps[1]).sum()
    expected = torch.tensor([[1, between, 0], [between, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(overlap[0], expected, rtol=0, atol=1e-4)
    assert (overlap[1] == 0).all()


def test_box_corner_overlap_uses_the_proposals_and_not_the_maps(make_targets, make_proposal):
    targets = make_targets([2])
    center, size = targets.boxes.center.clone(), targets.boxes.size.clone()
    size[0, 1] *= torch.tensor([0.5, 1.0])
    overlap = box_corner_overlap(make_proposal(center, size), torch.zeros(1, 3, HEIGHT, WIDTH), targets)
    assert overlap[0, 0, 0].item() == pytest.approx(1, abs=1e-5)
    assert overlap[0, 1, 1].item() == pytest.approx(0.5, abs=1e-5)


def loop_score_loss(scores: np.ndarray, matched: np.ndarray) -> float:
    total = 0.0
    batch, steps = scores.shape
    for b in range(batch):
        for t in range(steps):
            lowest, highest = min(scores[b, : t + 1]), max(scores[b, t:])
            total -= matched[b, t] * math.log(lowest + 1e-5) + (1 - matched[b, t]) * math.log(1 - highest + 1e-5)
    return total / (batch * steps)


def test_score_loss_of_every_matching_of_four_steps():
    generator = torch.Generator().manual_seed(0)
    for code in range(16):
        matched = torch.tensor([[code >> t & 1 for t in range(4)], [1, 1, 0, 0]], dtype=torch.float64)
        scores = torch.rand(2, 4, dtype=torch.float64, generator=generator)
        assert score_loss(scores, matched).item() == pytest.approx(loop_score_loss(scores.numpy(), matched.numpy()))


def test_score_loss_by_hand():
    # Once low the score has to stay low: step 1 is judged by the 0.9 that follows it.
    loss = score_loss(torch.tensor([[0.9, 0.1, 0.9]]), torch.tensor([[1.0, 0.0, 0.0]]))
    assert loss.item() == pytest.approx(-(math.log(0.9) + 2 * math.log(0.1)) / 3, rel=1e-3)


def test_score_loss_of_a_perfect_stop_is_about_zero_and_of_the_opposite_large():
    matched = torch.tensor([[1.0, 1.0, 0.0]])
    assert score_loss(matched, matched).item() == pytest.approx(0, abs=1e-4)
    assert score_loss(1 - matched, matched).item() == pytest.approx(-math.log(1e-5), rel=1e-3)


@pytest.mark.parametrize("count", range(5))
def test_score_loss_falls_as_objects_score_higher_and_the_rest_lower(count: int):
    generator = torch.Generator().manual_seed(count)
    matched = torch.zeros(1, 4)
    matched[:, :count] = 1
    for _ in range(20):
        scores = torch.rand(1, 4, generator=generator) * 0.8 + 0.1
        before = score_loss(scores, matched)
        for t in range(4):
            better = scores.clone()
            better[0, t] += 0.05 if t < count else -0.05
            assert score_loss(better, matched) <= before + 1e-6


def test_gradient_of_the_score_loss():
    scores = (torch.rand(2, 5, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    matched = torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0], [0.0] * 5], dtype=torch.float64)
    assert torch.autograd.gradcheck(score_loss, (scores, matched))


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.deconv = nn.ConvTranspose2d(3, 2, 3)
        self.inner = nn.Sequential(nn.Linear(4, 5), PerStepBatchNorm(5, 2), nn.BatchNorm2d(3))


def squares(*tensors: Tensor) -> float:
    return sum((tensor.detach().double() ** 2).sum().item() for tensor in tensors)


def test_weight_decay_counts_matrices_and_neither_biases_nor_norms():
    module = Weighted()
    loss = weight_decay_loss(module, 0.01)
    expected = 0.01 * 0.5 * squares(module.conv.weight, module.deconv.weight, module.inner[0].weight)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    decayed = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert decayed == {"conv.weight", "deconv.weight", "inner.0.weight"}
    torch.testing.assert_close(module.conv.weight.grad, 0.01 * module.conv.weight)
