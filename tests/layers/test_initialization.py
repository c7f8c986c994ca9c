"""Initial weights: their spread, measured over many of them."""

import math

import pytest
import torch
from torch import nn

from rec_attend_d2.layers.initialization import initialize
from rec_attend_d2.layers.step_norm import PerStepBatchNorm


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def layers() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "conv": nn.Conv2d(32, 64, 3),
            "deconv": nn.ConvTranspose2d(64, 32, 3),
            "linear": nn.Linear(100, 300),
            "unbiased": nn.Linear(4, 4, bias=False),
            "norm": PerStepBatchNorm(8, 3),
        }
    )


@pytest.mark.parametrize("initializer", ["kaiming", "truncated_normal"])
def test_biases_start_at_zero_and_norms_stay_as_they_are(initializer: str):
    module = layers()
    with torch.no_grad():
        module["norm"].weight.fill_(0.7)
        module["norm"].bias.fill_(0.2)
    initialize(module, initializer)
    for name in ("conv", "deconv", "linear"):
        assert (module[name].bias == 0).all()
    assert (module["norm"].weight == 0.7).all() and (module["norm"].bias == 0.2).all()


@pytest.mark.parametrize("name", ["conv", "deconv", "linear"])
def test_truncated_normal_has_std_one_hundredth_and_no_outliers(name: str):
    module = layers()
    initialize(module, "truncated_normal")
    weight = module[name].weight
    assert weight.abs().max() <= 0.02
    assert abs(weight.mean().item()) < 5e-4
    # A normal of std 0.01 cut at two standard deviations has std 0.0088.
    assert weight.std().item() == pytest.approx(0.0088, rel=0.03)


def test_kaiming_keeps_the_size_of_activations_through_relu_layers():
    module = layers()
    initialize(module, "kaiming")
    assert module["conv"].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    assert module["deconv"].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)


def test_linear_layers_start_with_xavier():
    module = layers()
    initialize(module, "kaiming")
    bound = math.sqrt(6 / (100 + 300))
    weight = module["linear"].weight
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_an_unknown_initializer_is_named_with_its_key_and_the_alternatives():
    with pytest.raises(ValueError, match=r"MODEL\.REC_ATTEND\.INIT.*'xavier'.*kaiming, truncated_normal"):
        initialize(layers(), "xavier")
