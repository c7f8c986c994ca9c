"""Conv and norm in one go against one after the other."""

from functools import partial

import pytest
import torch
from torch import nn

from rec_attend_d2.layers.conv_norm import concatenate_fast, conv_norm, fast_layout, remembered_folds
from rec_attend_d2.layers.step_norm import STEP_NORMS

STEP = 1


def fill(module: nn.Module) -> None:
    """Random positive parameters and statistics."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(torch.rand_like(tensor) + 0.1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["per_step", "shared", "none"])
@pytest.mark.parametrize(
    "make_conv",
    [
        partial(nn.Conv2d, 3, 8, 3, padding=1),
        partial(nn.Conv2d, 3, 8, 3, stride=2, padding=1, bias=False),
        partial(nn.Conv2d, 3, 8, 1, bias=False),
        partial(nn.ConvTranspose2d, 3, 8, 3, stride=2),
        partial(nn.ConvTranspose2d, 3, 8, 3, padding=1),
    ],
)
def test_equals_conv_and_then_norm(training: bool, norm: str, make_conv):
    torch.manual_seed(0)
    conv, layer = make_conv(), STEP_NORMS[norm](8, time_steps=3)
    fill(layer)
    layer.train(training)
    x = torch.randn(2, 3, 9, 10)
    torch.testing.assert_close(conv_norm(conv, layer, x, STEP), layer(conv(x), STEP), rtol=1e-5, atol=1e-5)


def test_the_batch_is_counted_once_in_training():
    conv, layer = nn.Conv2d(3, 8, 3), STEP_NORMS["per_step"](8, time_steps=3)
    x = torch.randn(2, 3, 9, 10)
    expected = 0.1 * conv(x).mean((0, 2, 3))
    conv_norm(conv, layer, x, STEP)
    torch.testing.assert_close(layer.running_mean[STEP], expected.detach())
    assert (layer.running_mean[0] == 0).all()


def test_layout_on_the_cpu():
    x = torch.randn(2, 3, 4, 5)
    assert fast_layout(x).is_contiguous(memory_format=torch.channels_last) and torch.equal(fast_layout(x), x)


@pytest.mark.parametrize("norm", ["per_step", "shared"])
@pytest.mark.parametrize("make_conv", [nn.Conv2d, partial(nn.ConvTranspose2d, bias=False)])
def test_remembered_folds_give_every_step_its_own(norm: str, make_conv):
    torch.manual_seed(0)
    conv, layer = make_conv(3, 8, 3), STEP_NORMS[norm](8, time_steps=3).eval()
    fill(layer)
    x = torch.randn(2, 3, 9, 10)
    expected = [conv_norm(conv, layer, x, step) for step in range(3)]
    with remembered_folds():
        for step in (2, 0, 1, 2):
            torch.testing.assert_close(conv_norm(conv, layer, x, step), expected[step])
        fill(layer)  # too late for this pass
        torch.testing.assert_close(conv_norm(conv, layer, x, 0), expected[0])
    assert not torch.allclose(conv_norm(conv, layer, x, 0), expected[0])


def test_remembered_folds_leave_training_alone():
    conv, layer = nn.Conv2d(3, 8, 3), STEP_NORMS["per_step"](8, time_steps=3)
    x = torch.randn(2, 3, 9, 10)
    with remembered_folds():
        out = conv_norm(conv, layer, x, STEP)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)


def test_concatenation_in_the_fast_layout():
    maps = [torch.randn(2, 3, 4, 5), torch.randn(2, 1, 4, 5), fast_layout(torch.randn(2, 2, 4, 5))]
    result = concatenate_fast(maps)
    assert torch.equal(result, torch.cat(maps, 1)) and result.is_contiguous(memory_format=torch.channels_last)
