"""Comparing an exported model with the original."""

import math

import pytest
import torch

from rec_attend_d2.export import Comparison, compare
from rec_attend_d2.export.comparison import largest_difference


@pytest.mark.parametrize(
    ("value", "original", "expected"),
    [
        ([0.5, 0.25], [0.5, 0.5], 0.25),
        ([110.0], [100.0], 0.1),  # relative above 1
        ([-110.0], [-100.0], 0.1),
        ([math.nan], [0.5], math.inf),
        ([0.5], [math.nan], math.inf),
    ],
)
def test_largest_difference(value, original, expected):
    assert largest_difference(torch.tensor(value), torch.tensor(original)) == pytest.approx(expected)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"exported model gives \(2,\), the original \(2, 1\)"):
        largest_difference(torch.zeros(2), torch.zeros(2, 1))


def test_the_worst_batch_counts():
    batches = [torch.full((1, 1), 0.1), torch.full((3, 1), 0.4), torch.full((2, 1), 0.2)]
    result = compare(lambda x: {"a": 2 * x, "b": x}, lambda x: {"a": x, "b": x}, batches)
    assert result.images == 6
    assert result.differences == {"a": pytest.approx(0.4), "b": 0.0}
    assert result.above(0.3) == ["a"]
    assert result.above(0.5) == []


def test_a_difference_that_is_no_number_is_above_every_tolerance():
    assert Comparison({"a": math.inf}, 1).above(1e9) == ["a"]


def test_names_must_agree():
    with pytest.raises(ValueError, match=r"exported model gives \['a'\], the original \['b'\]"):
        compare(lambda x: {"a": x}, lambda x: {"b": x}, [torch.zeros(1)])
