"""Matchers against all permutations."""

import itertools

import pytest
import torch
from torch import Tensor

from rec_attend_d2.modeling.paper.matcher import match_best, match_in_order

STEPS, SLOTS = 5, 5


def best_total(weights: Tensor, count: int) -> float:
    """The largest sum of weights that a matching of the first ``count`` steps and instances can have."""
    return max(sum(weights[t, n].item() for t, n in enumerate(order)) for order in itertools.permutations(range(count)))


@pytest.mark.parametrize("seed", range(5))
def test_hungarian_finds_the_best_matching_of_the_first_steps(seed: int):
    overlap = torch.rand(4, STEPS, SLOTS, generator=torch.Generator().manual_seed(seed))
    # Steps and slots that take no part look best.
    for index, count in enumerate((1, 2, 4, 5)):
        overlap[index, count:] = 2
        overlap[index, :, count:] = 2
    counts = torch.tensor([1, 2, 4, 5])
    match = match_best(overlap, counts)
    assert match.shape == overlap.shape and match.dtype == overlap.dtype
    for index, count in enumerate(counts.tolist()):
        taking_part = match[index, :count, :count]
        assert (taking_part.sum(0) == 1).all() and (taking_part.sum(1) == 1).all()
        assert match[index].sum() == count
        assert (match[index] * overlap[index]).sum().item() == pytest.approx(best_total(overlap[index], count))


def test_greedy_is_not_enough():
    overlap = torch.tensor([[[0.9, 0.8], [0.8, 0.0]]])
    assert match_best(overlap, torch.tensor([2])).tolist() == [[[0, 1], [1, 0]]]


def test_every_instance_is_matched_even_without_overlap():
    match = match_best(torch.zeros(1, STEPS, SLOTS), torch.tensor([3]))
    assert match[0, :3, :3].sum(0).tolist() == match[0, :3, :3].sum(1).tolist() == [1, 1, 1]
    assert match.sum() == 3


def test_nan_counts_as_no_overlap():
    overlap = torch.tensor([[[float("nan")] * 3, [0.1, 0.9, 0.2], [0.3, 0.8, 0.1]]])
    match = match_best(overlap, torch.tensor([3]))
    assert match.tolist() == [[[0, 0, 1], [0, 1, 0], [1, 0, 0]]]
    assert torch.isfinite(match_best(torch.full((1, 3, 3), float("nan")), torch.tensor([3]))).all()


def test_images_without_objects_match_nothing():
    match = match_best(torch.rand(2, STEPS, SLOTS), torch.tensor([0, 2]))
    assert match[0].sum() == 0
    assert match[1].sum() == 2


def test_reordering_instances_reorders_the_matching():
    overlap = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(3))
    order = [2, 0, 3, 1]
    count = torch.tensor([4])
    assert torch.equal(match_best(overlap[:, :, order], count), match_best(overlap, count)[:, :, order])


@pytest.mark.parametrize("matcher", [match_best, match_in_order])
def test_a_matching_has_no_gradient(matcher):
    overlap = torch.rand(2, 3, 3, requires_grad=True)
    assert not matcher(overlap, torch.tensor([2, 3])).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_can_be_matched(dtype: torch.dtype):
    overlap = torch.tensor([[[0.25, 0.75], [0.5, 0.625]]], dtype=dtype)
    match = match_best(overlap, torch.tensor([2]))
    assert match.dtype == dtype
    assert match.tolist() == [[[0, 1], [1, 0]]]


def test_fixed_order_is_step_by_step():
    match = match_in_order(torch.rand(3, 4, 3), torch.tensor([0, 2, 3]))
    assert match[0].sum() == 0
    assert match[1].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert match[2].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
