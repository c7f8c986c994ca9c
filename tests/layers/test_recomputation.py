"""Computing again instead of keeping: same gradients, no side effects twice."""

import pytest
import torch

from rec_attend_d2.layers.recomputation import is_recomputing, recomputed


def test_a_part_knows_when_it_runs_again():
    runs = []

    def part(x: torch.Tensor) -> torch.Tensor:
        runs.append(is_recomputing())
        return torch.exp(x * torch.rand_like(x))

    x = torch.ones(3, requires_grad=True)
    y = recomputed(part, x)
    assert runs == [False]
    y.sum().backward()
    assert runs == [False, True] and not is_recomputing()
    # d/dx exp(r x) = r exp(r x) with x = 1: only right if the same numbers were drawn again.
    torch.testing.assert_close(x.grad, y.detach().log() * y.detach())


def test_a_failure_the_second_time_leaves_no_trace():
    def part(x: torch.Tensor) -> torch.Tensor:
        if is_recomputing():
            raise RuntimeError("out of luck")
        return torch.exp(x)

    y = recomputed(part, torch.ones(3, requires_grad=True))
    with pytest.raises(RuntimeError, match="out of luck"):
        y.sum().backward()
    assert not is_recomputing()
