"""Conv and transposed conv stacks: alignment, order of operations and wiring of the skips."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_attend_d2.layers.conv_stack import ConvLayer, ConvStack, DeconvLayer, DeconvStack


class Recorder(nn.Module):
    """Stands in for a norm: adds a constant and remembers the steps it was called with."""

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


def recorders(module: nn.Module) -> list[Recorder]:
    return [child for child in module.modules() if isinstance(child, Recorder)]


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("pool", [1, 2, 3])
def test_conv_layer_is_conv_norm_relu_pool(pool: int, gradients: bool):
    layer = ConvLayer(3, 5, pool, Recorder)
    x = torch.randn(2, 3, 12, 18)
    values = F.conv2d(F.pad(x, (1, 1, 1, 1)), layer.conv.weight, layer.conv.bias) - 0.25
    expected = F.max_pool2d(values.clamp(min=0), pool)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(layer(x, 2), expected)
    assert recorders(layer)[0].steps == [2]


def test_conv_stack_returns_every_layer_shallowest_first():
    stack = ConvStack(3, [4, 5, 6], [1, 2, 2], Recorder)
    x = torch.randn(2, 3, 8, 12)
    outputs = stack(x, 1)
    assert [tuple(output.shape) for output in outputs] == [(2, 4, 8, 12), (2, 5, 4, 6), (2, 6, 2, 3)]
    torch.testing.assert_close(outputs[2], stack.layers[2](outputs[1], 1))
    assert [norm.steps for norm in recorders(stack)] == [[1], [1], [1, 1]]


@pytest.mark.parametrize(("stride", "padding"), [(1, (1, 1, 1, 1)), (2, (0, 1, 0, 1))])
@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 1)])
def test_transposed_conv_is_the_gradient_of_a_same_padded_conv(
    stride: int, padding: tuple[int, ...], size: tuple[int, int]
):
    # A conv of stride 2 with "SAME" alignment pads an even side by one pixel, at its end.
    layer = DeconvLayer(5, 3, stride, Recorder).double()
    nn.init.constant_(layer.conv.bias, 1.0)  # so that ReLU does not hide everything
    small = torch.randn(2, 5, *size, dtype=torch.float64)
    large = torch.zeros(2, 3, stride * size[0], stride * size[1], dtype=torch.float64, requires_grad=True)
    shrunk = F.conv2d(F.pad(large, padding), layer.conv.weight, stride=stride)
    assert shrunk.shape == small.shape
    (gradient,) = torch.autograd.grad(shrunk, large, small)

    expected = (gradient + layer.conv.bias.view(1, -1, 1, 1) - 0.25).clamp(min=0)
    torch.testing.assert_close(layer(small, 0), expected)


def test_deconv_stack_gives_each_layer_but_the_first_its_skip():
    stack = DeconvStack(6, [4, 3], [5, 2, 1], [2, 1, 2], Recorder)
    x, skips = torch.randn(2, 6, 3, 4), [torch.randn(2, 4, 6, 8), torch.randn(2, 3, 6, 8)]
    first = stack.layers[0](x, 1)
    second = stack.layers[1](torch.cat([first, skips[0]], 1), 1)
    expected = stack.layers[2](torch.cat([second, skips[1]], 1), 1)
    result = stack(x, skips, 1)
    assert result.shape == (2, 1, 12, 16)
    torch.testing.assert_close(result, expected)
    assert all(set(norm.steps) == {1} for norm in recorders(stack))


def test_deconv_stack_of_one_layer_needs_no_skip():
    stack = DeconvStack(6, [], [1], [2], Recorder)
    assert stack(torch.randn(1, 6, 3, 4), [], 0).shape == (1, 1, 6, 8)


def test_a_missing_skip_is_an_error_and_not_left_out():
    stack = DeconvStack(6, [4, 3], [5, 2, 1], [2, 1, 2], Recorder)
    with pytest.raises(ValueError):
        stack(torch.randn(2, 6, 3, 4), [torch.randn(2, 4, 6, 8)], 0)


def test_channels_and_pools_of_different_length_are_an_error():
    with pytest.raises(ValueError):
        ConvStack(3, [4, 5, 6], [1, 2], Recorder)
