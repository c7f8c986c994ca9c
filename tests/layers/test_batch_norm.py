"""Batch norm in both memory layouts."""

import pytest
import torch

from rec_attend_d2.layers.batch_norm import BatchNorm, batch_norm, channel_statistics

EPS = 1e-3


def random_map(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 3).to(dtype)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def test_statistics_of_large_maps_are_exact():
    x = random_map(4, 8, 224, 224)
    mean, var = channel_statistics(channels_last(x))
    expected = x.double()
    torch.testing.assert_close(mean.double(), expected.mean((0, 2, 3)), rtol=2e-7, atol=0)
    torch.testing.assert_close(var.double(), expected.var((0, 2, 3), correction=0), rtol=2e-6, atol=0)


def test_a_constant_channel_has_no_variance():
    _, var = channel_statistics(channels_last(torch.full((2, 3, 5, 7), 0.1)))
    assert (var >= 0).all() and var.max() < 1e-7


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_batch_norm_written_out(layout: torch.memory_format):
    x, weight, bias = random_map(3, 4, 5, 6, dtype=torch.float64), torch.rand(4).double(), torch.rand(4).double()
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    normal = (x - mean[:, None, None]) / (var[:, None, None] + EPS).sqrt()
    result = batch_norm(x.contiguous(memory_format=layout), weight, bias, EPS)
    expected = weight[:, None, None] * normal + bias[:, None, None], mean, var
    for ours, theirs in zip(result, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert result[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients(layout: torch.memory_format):
    x = random_map(2, 3, 4, 2, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight, bias = torch.rand(3).double().requires_grad_(), torch.rand(3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *inputs: batch_norm(*inputs, EPS)[0], (x, weight, bias))


def test_gradients_of_large_maps_in_float32():
    weight, bias = torch.rand(8), torch.rand(8)
    grad = random_map(2, 8, 96, 96).flip(2) - 3
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs = [v.to(dtype).requires_grad_() for v in (channels_last(random_map(2, 8, 96, 96)), weight, bias)]
        out = batch_norm(*inputs, EPS)[0]
        results.append(torch.autograd.grad(out, inputs, grad.to(dtype)))
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5)


def test_a_single_pixel():
    out, mean, var = batch_norm(channels_last(torch.full((1, 2, 1, 1), 5.0)), torch.ones(2), torch.zeros(2), EPS)
    assert out.abs().max() < 1e-4 and (mean == 5).all() and (var == 0).all()


def test_the_layer_keeps_biased_statistics_and_takes_a_single_value():
    layer, x = BatchNorm(4, eps=EPS), random_map(3, 4, 5, 6)
    normal, _, _ = batch_norm(x, layer.weight, layer.bias, EPS)
    torch.testing.assert_close(layer(x), normal)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * x.var((0, 2, 3), correction=0))
    torch.nn.init.ones_(layer.bias)
    torch.testing.assert_close(layer(random_map(1, 4, 1, 1)), torch.ones(1, 4, 1, 1))
    layer.eval()
    expected = torch.nn.functional.batch_norm(
        x, layer.running_mean, layer.running_var, None, layer.bias, False, 0.0, EPS
    )
    torch.testing.assert_close(layer(x), expected)
