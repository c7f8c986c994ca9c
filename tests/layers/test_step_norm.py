"""Norms that know the time step, against torch's own batch norm and statistics from numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rec_attend_d2.layers.step_norm import NoNorm, PerStepBatchNorm, SharedBatchNorm

STEPS, CHANNELS = 3, 4


def images(seed: int = 0, batch: int = 2, height: int = 5, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.05, 1.0, 3.0, 20.0]).view(1, CHANNELS, 1, 1)
    return (torch.randn(batch, CHANNELS, height, width, generator=generator) + 2) * scale


def perturbed(norm: PerStepBatchNorm) -> PerStepBatchNorm:
    """Affine parameters that differ from step to step."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        norm.weight += 0.3 * torch.randn(norm.weight.shape, generator=generator)
        norm.bias += torch.randn(norm.bias.shape, generator=generator)
    return norm


@pytest.mark.parametrize("step", range(STEPS))
def test_training_normalises_as_batch_norm_with_the_steps_own_parameters(step: int):
    norm = perturbed(PerStepBatchNorm(CHANNELS, STEPS))
    x = images().requires_grad_()
    expected_x = images().requires_grad_()
    upstream = images(seed=5)

    out = norm(x, step)
    expected = F.batch_norm(expected_x, None, None, norm.weight[step], norm.bias[step], training=True, eps=1e-3)
    torch.testing.assert_close(out, expected)
    out.backward(upstream)
    weight_gradient, bias_gradient = norm.weight.grad.clone(), norm.bias.grad.clone()
    norm.zero_grad()
    expected.backward(upstream)
    torch.testing.assert_close(x.grad, expected_x.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weight_gradient, norm.weight.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(bias_gradient, norm.bias.grad)
    others = [s for s in range(STEPS) if s != step]
    assert (weight_gradient[others] == 0).all() and (bias_gradient[others] == 0).all()


def test_running_statistics_are_a_tenth_of_the_new_with_biased_variance():
    norm = PerStepBatchNorm(CHANNELS, STEPS)
    first, second = images(0), images(1)
    norm(first, 1)
    norm(second, 1)
    means = [x.numpy().mean((0, 2, 3)) for x in (first, second)]
    variances = [x.numpy().var((0, 2, 3)) for x in (first, second)]  # numpy's variance is the biased one
    np.testing.assert_allclose(norm.running_mean[1].numpy(), 0.1 * means[1] + 0.09 * means[0], rtol=1e-4)
    np.testing.assert_allclose(norm.running_var[1].numpy(), 0.81 + 0.1 * variances[1] + 0.09 * variances[0], rtol=1e-4)


def test_a_step_leaves_the_statistics_of_the_others():
    norm = PerStepBatchNorm(CHANNELS, STEPS)
    norm(images(), 2)
    assert (norm.running_mean[:2] == 0).all() and (norm.running_var[:2] == 1).all()
    assert (norm.running_mean[2] != 0).all() and (norm.running_var[2] != 1).all()


def test_evaluation_uses_the_steps_running_statistics_and_changes_none():
    norm = perturbed(PerStepBatchNorm(CHANNELS, STEPS))
    for step in range(STEPS):
        norm(images(seed=step), step)
    norm.eval()
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    x = images(seed=7)
    for step in range(STEPS):
        scale = norm.weight[step] / torch.sqrt(norm.running_var[step] + 1e-3)
        expected = (x - norm.running_mean[step].view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias[step].view(-1, 1, 1)
        torch.testing.assert_close(norm(x, step), expected, rtol=1e-4, atol=1e-4)
    for name, tensor in norm.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(("kind", "kept"), [(PerStepBatchNorm, 0.9), (SharedBatchNorm, 0.9 ** (1 / STEPS))])
def test_a_single_value_per_channel_becomes_the_bias(kind: type[PerStepBatchNorm], kept: float):
    norm = perturbed(kind(CHANNELS, STEPS))
    x = images(batch=1, height=1, width=1).requires_grad_()
    out = norm(x, 0)
    torch.testing.assert_close(out.flatten(), norm.bias[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(norm.running_var[0].numpy(), kept, atol=1e-6)
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_constant_channels_never_get_a_negative_variance():
    norm = PerStepBatchNorm(CHANNELS, 1)
    for _ in range(50):
        norm(torch.full((2, CHANNELS, 3, 3), 123.456), 0)
    assert (norm.running_var >= 0).all()


def test_shared_norm_ignores_the_step():
    norm = perturbed(SharedBatchNorm(CHANNELS, STEPS))
    assert norm.weight.shape == norm.running_mean.shape == (1, CHANNELS)
    x = images()
    torch.testing.assert_close(norm(x, 0), norm(x, 2))
    norm.eval()
    assert torch.equal(norm(x, 0), norm(x, 2))


def test_shared_statistics_move_by_a_tenth_in_all_steps_together():
    norm = SharedBatchNorm(CHANNELS, STEPS)
    x = images()
    for step in range(STEPS):
        norm(x, step)
    np.testing.assert_allclose(norm.running_mean[0].numpy(), 0.1 * x.numpy().mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(norm.running_var[0].numpy(), 0.9 + 0.1 * x.numpy().var((0, 2, 3)), rtol=1e-4)


def test_no_norm_has_no_parameters_and_returns_its_input():
    norm = NoNorm(CHANNELS, STEPS)
    x = images()
    assert norm(x, 1) is x
    assert not norm.state_dict()


def test_a_step_beyond_the_last_is_refused():
    with pytest.raises(IndexError):
        PerStepBatchNorm(CHANNELS, STEPS)(images(), STEPS)
