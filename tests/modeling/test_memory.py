"""External memory: what it remembers, what it hides, and that no gradient flows through it."""

import pytest
import torch

from rec_attend_d2.modeling.memory import MaxMemory, NoOverwriteMemory, build_memory


@pytest.mark.parametrize(("name", "kind"), [("MaxMemory", MaxMemory), ("NoOverwriteMemory", NoOverwriteMemory)])
def test_built_from_config(tiny_cfg, name: str, kind: type):
    assert type(build_memory(tiny_cfg({"MEMORY.NAME": name}))) is kind


@pytest.mark.parametrize("memory", [MaxMemory(), NoOverwriteMemory()])
def test_empty_at_first(memory: MaxMemory):
    initial = memory.initial(torch.rand(2, 3, 4, 5, dtype=torch.float64))
    assert initial.shape == (2, 4, 5)
    assert initial.dtype == torch.float64
    assert (initial == 0).all()


@pytest.mark.parametrize("memory", [MaxMemory(), NoOverwriteMemory()])
def test_each_pixel_keeps_the_most_that_was_ever_claimed(memory: MaxMemory):
    claims = torch.rand(6, 2, 4, 5)
    state = memory.initial(torch.zeros(2, 3, 4, 5))
    for t in range(6):
        state = memory.update(state, claims[t])
        assert torch.equal(state, claims[: t + 1].amax(0))


@pytest.mark.parametrize("memory", [MaxMemory(), NoOverwriteMemory()])
def test_no_gradient_flows_into_what_was_claimed(memory: MaxMemory):
    claimed = torch.rand(2, 4, 5, requires_grad=True)
    assert not memory.update(torch.zeros(2, 4, 5), claimed).requires_grad


def test_max_memory_hides_nothing():
    mask = torch.rand(2, 4, 5)
    assert torch.equal(MaxMemory().visible(mask, torch.rand(2, 4, 5)), mask)


def test_no_overwrite_lets_a_mask_have_only_what_is_left():
    mask = torch.tensor([[[0.8, 0.8, 0.8, 0.0]]], requires_grad=True)
    memory = torch.tensor([[[0.0, 0.25, 1.0, 0.5]]])
    visible = NoOverwriteMemory().visible(mask, memory)
    torch.testing.assert_close(visible, torch.tensor([[[0.8, 0.6, 0.0, 0.0]]]))
    visible.sum().backward()
    torch.testing.assert_close(mask.grad, torch.tensor([[[1.0, 0.75, 0.0, 0.5]]]))
