"""The control CNN: what it sees, the size of its map, and configs that cannot work."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rec_attend_d2.modeling.paper.control_cnn import ControlCNN
from rec_attend_d2.modeling.steps import ExtraMaps, StepInputs, select

KEY = "MODEL.REC_ATTEND.BOX_PROPOSER"
HEIGHT, WIDTH = 32, 64


def inputs(batch: int = 2, number: int = 0, angle_bins: int = 0) -> StepInputs:
    """Random maps for the step ``number``."""
    generator = torch.Generator().manual_seed(5)

    def rand(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    angle = rand(angle_bins, HEIGHT, WIDTH) if angle_bins else None
    return StepInputs(rand(3, HEIGHT, WIDTH), rand(HEIGHT, WIDTH), ExtraMaps(angle=angle), number)


@pytest.fixture
def conv_cfg(tiny_cfg):
    """``tiny_cfg`` with the image size of this file."""

    def make(overrides: dict | None = None):
        cfg = tiny_cfg(overrides)
        cfg.INPUT.IMAGE_SIZE = [HEIGHT, WIDTH]
        return cfg

    return make


def test_the_control_cnn_is_a_stack_of_conv_norm_relu_pool(conv_cfg):
    cnn = ControlCNN(conv_cfg({"NORM": "none"}))
    given = inputs()
    x = torch.cat([given.image, given.memory[:, None]], dim=1)
    for layer, pool in zip(cnn.layers, (2, 2, 1, 2), strict=True):
        x = F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1).clamp(min=0)
        x = F.max_pool2d(x, pool)
    torch.testing.assert_close(cnn(given), x)
    assert x.shape == (2, cnn.out_channels, *cnn.map_size) == (2, 6, 4, 8)


def test_the_control_cnn_sees_the_maps_it_is_told_to(conv_cfg):
    overrides = {
        "PREPROCESSOR.NAME": "GivenMaps",
        "PREPROCESSOR.ANGLE_BINS": 2,
        "BOX_PROPOSER.INPUTS": ["angle", "memory"],
    }
    cnn = ControlCNN(conv_cfg(overrides)).eval()
    given = inputs(angle_bins=2)
    expected = cnn(given)
    assert cnn.layers[0].conv.weight.shape[1] == 3
    given.image = given.image + 1
    assert torch.equal(cnn(given), expected)
    given.extra.angle = given.extra.angle + 1
    assert not torch.allclose(cnn(given), expected)


def test_the_control_cnn_uses_the_steps_own_norm(conv_cfg):
    cnn = ControlCNN(conv_cfg())
    cnn(inputs(number=2))
    means = cnn.layers[0].norm.running_mean
    assert (means[:2] == 0).all() and (means[2] != 0).any()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"CONV_CHANNELS": [4, 4, 6]}, f"{KEY}.CONV_CHANNELS and {KEY}.CONV_POOLS"),
        ({"CONV_POOLS": [2, 2, 3, 2]}, rf"{KEY}.CONV_POOLS = \[2, 2, 3, 2\].*INPUT.IMAGE_SIZE"),
        ({"INPUTS": []}, f"{KEY}.INPUTS is empty"),
        ({"INPUTS": ["image", "depth"]}, f"{KEY}.INPUTS names 'depth'"),
    ],
)
def test_the_control_cnn_refuses_layers_and_inputs_that_do_not_fit(conv_cfg, overrides: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ControlCNN(conv_cfg({f"BOX_PROPOSER.{key}": value for key, value in overrides.items()}))


def test_images_of_a_batch_do_not_see_each_other_in_evaluation(conv_cfg):
    cnn = ControlCNN(conv_cfg()).eval()
    torch.testing.assert_close(cnn(select(inputs(3), torch.tensor([1]))), cnn(inputs(3))[1:2])
