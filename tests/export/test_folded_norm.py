"""The norm of exported graphs does what the model's does, also where the step is a tensor."""

import pytest
import torch

from rec_attend_d2.export.folded_norm import FoldedNorm, fold_norms
from rec_attend_d2.layers.conv_stack import ConvLayer
from rec_attend_d2.layers.step_norm import PerStepBatchNorm, SharedBatchNorm

CHANNELS, STEPS = 4, 3


@pytest.fixture
def norm_of():
    """A function from a norm class to a norm in evaluation mode whose rows differ."""

    def make(norm_class):
        torch.manual_seed(0)
        norm = norm_class(CHANNELS, STEPS).eval()
        for values in (norm.weight, norm.running_var):
            torch.nn.init.uniform_(values, 0.5, 1.5)
        for values in (norm.bias, norm.running_mean):
            torch.nn.init.uniform_(values, -1, 1)
        return norm

    return make


@pytest.mark.parametrize("norm_class", [PerStepBatchNorm, SharedBatchNorm])
@pytest.mark.parametrize("step", range(STEPS))
def test_it_reads_the_row_of_the_step(norm_class, step, norm_of):
    norm = norm_of(norm_class)
    folded = FoldedNorm(norm)
    x = torch.rand(2, CHANNELS, 5, 6)
    for given in (step, torch.tensor(step)):
        own = folded.scale_and_shift(folded.slot(given))
        for value, expected in zip(own, norm.scale_and_shift(norm.slot(step)), strict=True):
            assert torch.equal(value, expected)
        assert torch.allclose(folded(x, given), norm(x, step), atol=1e-6)


def test_rows_differ(norm_of):
    folded = FoldedNorm(norm_of(PerStepBatchNorm))
    assert not torch.equal(folded.scale_and_shift(torch.tensor(0))[0], folded.scale_and_shift(torch.tensor(1))[0])


def test_batch_norms_are_replaced_at_any_depth_and_nothing_else():
    layers = torch.nn.ModuleList([ConvLayer(3, 8, 1, lambda c: SharedBatchNorm(c, STEPS)), torch.nn.BatchNorm2d(8)])
    fold_norms(layers)
    assert isinstance(layers[0].norm, FoldedNorm) and isinstance(layers[1], torch.nn.BatchNorm2d)
