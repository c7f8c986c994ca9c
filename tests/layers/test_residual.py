"""Residual blocks: order of operations, sizes that do not divide, and how they start."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_attend_d2.layers.residual import ConvNorm, ConvNormReLU, ResidualBlock, calm_residuals, enlarge
from rec_attend_d2.layers.step_norm import NoNorm, PerStepBatchNorm, StepGroupNorm

STEPS = 3


class Recorder(nn.Module):
    """Stands in for a norm: subtracts a constant and remembers the steps it was called with."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.steps: list[int] = []

    def forward(self, x: Tensor, step: int) -> Tensor:
        assert x.shape[1] == self.channels
        self.steps.append(step)
        return x - 0.25


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def mean_over_blocks(x: Tensor, stride: int) -> Tensor:
    """Mean of each block of ``stride`` x ``stride`` pixels; at the end of an odd side of those that are there."""
    rows, columns = math.ceil(x.shape[2] / stride), math.ceil(x.shape[3] / stride)
    result = x.new_zeros(*x.shape[:2], rows, columns)
    for i in range(rows):
        for j in range(columns):
            block = x[:, :, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            result[:, :, i, j] = block.mean((2, 3))
    return result


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 12), (5, 7)])
def test_conv_norm_and_its_relu(kernel: int, stride: int, size: tuple[int, int]):
    x = torch.randn(2, 3, *size)
    for kind in (ConvNorm, ConvNormReLU):
        layer = kind(3, 4, Recorder, stride, kernel)
        assert layer.conv.bias is None
        padded = F.pad(x, [kernel // 2] * 4)
        expected = F.conv2d(padded, layer.conv.weight, stride=stride) - 0.25
        assert (expected < 0).any()
        if kind is ConvNormReLU:
            expected = expected.clamp(min=0)
        out = layer(x, 2)
        assert out.shape == (2, 4, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        torch.testing.assert_close(out, expected)
        assert layer.norm.steps == [2]


def test_a_block_of_equal_size_adds_its_input():
    block = ResidualBlock(3, 3, Recorder)
    assert block.shortcut is None
    x = torch.randn(2, 3, 5, 7)
    first = (F.conv2d(x, block.first.conv.weight, padding=1) - 0.25).clamp(min=0)
    second = F.conv2d(first, block.second.conv.weight, padding=1) - 0.25
    torch.testing.assert_close(block(x, 1), (x + second).clamp(min=0))
    assert block.first.norm.steps == block.second.norm.steps == [1]


@pytest.mark.parametrize(("channels", "stride"), [(3, 2), (5, 1), (5, 2), (5, 3)])
@pytest.mark.parametrize("size", [(6, 12), (5, 7)])
def test_the_shortcut_averages_over_the_stride_and_changes_channels(channels: int, stride: int, size: tuple[int, int]):
    block = ResidualBlock(3, channels, Recorder, stride)
    x = torch.randn(2, 3, *size)
    first = (F.conv2d(x, block.first.conv.weight, stride=stride, padding=1) - 0.25).clamp(min=0)
    second = F.conv2d(first, block.second.conv.weight, padding=1) - 0.25
    shortcut = F.conv2d(mean_over_blocks(x, stride), block.shortcut.conv.weight) - 0.25
    torch.testing.assert_close(block(x, 1), (shortcut + second).clamp(min=0))
    assert block.shortcut.norm.steps == [1]


@pytest.mark.parametrize("like", [(4, 6), (5, 7), (2, 3), (6, 12)])
def test_enlarge_repeats_the_nearest_pixel(like: tuple[int, int]):
    x = torch.randn(2, 3, 2, 3)
    result = enlarge(x, torch.zeros(2, 1, *like))
    assert result.shape == (2, 3, *like)
    for i in range(like[0]):
        for j in range(like[1]):
            assert torch.equal(result[:, :, i, j], x[:, :, i * 2 // like[0], j * 3 // like[1]])


@pytest.mark.parametrize("norm", [PerStepBatchNorm, StepGroupNorm])
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 2)])
def test_a_calmed_block_is_its_shortcut(norm: type[nn.Module], channels: int, stride: int):
    parent = nn.ModuleDict(
        {"deep": nn.ModuleList([ResidualBlock(4, channels, partial(norm, time_steps=STEPS), stride)])}
    )
    calm_residuals(parent)
    block = parent["deep"][0]
    x = torch.randn(2, 4, 6, 8)
    for step in range(STEPS):
        shortcut = x if block.shortcut is None else block.shortcut(mean_over_blocks(x, stride), step)
        torch.testing.assert_close(block(x, step), shortcut.clamp(min=0))


def test_calming_leaves_every_other_weight_and_the_way_back():
    block = ResidualBlock(4, 6, partial(StepGroupNorm, time_steps=1))
    before = {name: value.clone() for name, value in block.state_dict().items()}
    calm_residuals(block)
    changed = {name for name, value in block.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"second.norm.weight"}
    # The gain is 0, its gradient is not: the block can leave its shortcut.
    block(torch.randn(2, 4, 6, 8), 0).square().sum().backward()
    assert (block.second.norm.weight.grad != 0).all()


def test_a_block_without_norm_has_nothing_to_calm():
    block = ResidualBlock(4, 4, partial(NoNorm, time_steps=1))
    before = {name: value.clone() for name, value in block.state_dict().items()}
    calm_residuals(block)
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_gradients_of_a_block():
    block = ResidualBlock(2, 3, partial(StepGroupNorm, time_steps=1), stride=2).double()
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: block(x, 0), [x])
