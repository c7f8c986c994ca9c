"""Control CNNs: what they see, the size of their map, and configs that cannot work."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rec_attend_d2.layers.residual import ResidualBlock
from rec_attend_d2.modeling.control_cnn import ConvControlCNN, FeatureControlCNN, build_control_cnn
from rec_attend_d2.modeling.inputs import StepInputs
from rec_attend_d2.modeling.step_types import ExtraMaps

KEY = "MODEL.REC_ATTEND.BOX_PROPOSER"
HEIGHT, WIDTH = 32, 64
# An image passes the parts once per time step, so that there are statistics for each.
UNROLLED = {"TRAINING.MODE": "SequentialSteps"}


def inputs(batch: int = 2, memory_channels: int = 0, angle_bins: int = 0) -> StepInputs:
    """Random maps; ``memory_channels`` 0 is a memory without channels."""
    generator = torch.Generator().manual_seed(5)

    def rand(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    angle = rand(angle_bins, HEIGHT, WIDTH) if angle_bins else None
    features = (rand(4, HEIGHT // 4, WIDTH // 4), rand(6, HEIGHT // 8, WIDTH // 8))
    memory = rand(memory_channels, HEIGHT, WIDTH) if memory_channels else rand(HEIGHT, WIDTH)
    return StepInputs(rand(3, HEIGHT, WIDTH), memory, ExtraMaps(angle=angle, features=features))


@pytest.fixture
def conv_cfg(tiny_cfg):
    """``tiny_cfg`` with the image size of this file."""

    def make(overrides: dict | None = None):
        cfg = tiny_cfg(overrides)
        cfg.INPUT.IMAGE_SIZE = [HEIGHT, WIDTH]
        return cfg

    return make


def perturb(module: torch.nn.Module) -> None:
    """Leave the special values of fresh parameters: residual blocks that are their shortcut, norms without bias."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def test_conv_control_cnn_is_a_stack_of_conv_norm_relu_pool(conv_cfg):
    cnn = build_control_cnn(conv_cfg({"NORM": "none"}))
    assert isinstance(cnn, ConvControlCNN)
    given = inputs()
    x = torch.cat([given.image, given.memory[:, None]], dim=1)
    for layer, pool in zip(cnn.layers, (2, 2, 1, 2), strict=True):
        x = F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1).clamp(min=0)
        x = F.max_pool2d(x, pool)
    torch.testing.assert_close(cnn(given, 1), x)
    assert x.shape == (2, cnn.out_channels, *cnn.map_size) == (2, 6, 4, 8)


def test_conv_control_cnn_sees_the_maps_it_is_told_to(conv_cfg):
    overrides = {
        "PREPROCESSOR.NAME": "GivenMaps",
        "PREPROCESSOR.ANGLE_BINS": 2,
        "MEMORY.NAME": "BoundaryMemory",
        "BOX_PROPOSER.INPUTS": ["angle", "memory"],
    }
    cnn = build_control_cnn(conv_cfg(overrides)).eval()
    given = inputs(memory_channels=2, angle_bins=2)
    expected = cnn(given, 0)
    assert cnn.layers[0].conv.weight.shape[1] == 4
    given.image = given.image + 1
    assert torch.equal(cnn(given, 0), expected)
    given.extra.angle = given.extra.angle + 1
    assert not torch.allclose(cnn(given, 0), expected)


def test_conv_control_cnn_uses_the_steps_own_norm(conv_cfg):
    cnn = build_control_cnn(conv_cfg())
    cnn(inputs(), 2)
    means = cnn.layers[0].norm.running_mean
    assert (means[:2] == 0).all() and (means[2] != 0).any()


def test_conv_control_cnn_refuses_features(conv_cfg):
    overrides = {"PREPROCESSOR.FEATURE_CHANNELS": [4, 6], "BOX_PROPOSER.INPUTS": ["image", "features"]}
    with pytest.raises(ValueError, match=rf"{KEY}.INPUTS names 'features'.*{KEY}.CONTROL_CNN to 'FeatureControlCNN'"):
        build_control_cnn(conv_cfg(overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"CONV_CHANNELS": [4, 4, 6]}, f"{KEY}.CONV_CHANNELS and {KEY}.CONV_POOLS"),
        ({"CONV_POOLS": [2, 2, 3, 2]}, rf"{KEY}.CONV_POOLS = \[2, 2, 3, 2\].*INPUT.IMAGE_SIZE"),
        ({"INPUTS": []}, f"{KEY}.INPUTS is empty"),
        ({"INPUTS": ["image", "depth"]}, f"{KEY}.INPUTS names 'depth'"),
    ],
)
def test_conv_control_cnn_refuses_layers_and_inputs_that_do_not_fit(conv_cfg, overrides: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_control_cnn(conv_cfg({f"BOX_PROPOSER.{key}": value for key, value in overrides.items()}))


@pytest.mark.parametrize("memory", ["MaxMemory", "BoundaryMemory"])
@pytest.mark.parametrize("norm", ["per_step", "shared", "group", "none"])
def test_feature_control_cnn_has_a_cell_for_eight_by_eight_pixels(fast_cfg, memory: str, norm: str):
    cnn = build_control_cnn(fast_cfg({"MEMORY.NAME": memory, "NORM": norm, **UNROLLED}))
    assert isinstance(cnn, FeatureControlCNN)
    assert cnn.map_size == (4, 8) and cnn.out_channels == 8
    given = inputs(memory_channels=2 if memory == "BoundaryMemory" else 0)
    for training in (True, False):
        assert cnn.train(training)(given, 2).shape == (2, 8, 4, 8)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_memory_meets_the_features_as_mean_and_maximum_of_each_cell(fast_cfg, channels: int):
    cnn = build_control_cnn(fast_cfg({"MEMORY.NAME": "MaxMemory" if channels == 1 else "BoundaryMemory"}))
    seen = []
    cnn.meet.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    given = inputs(memory_channels=0 if channels == 1 else 2)
    cnn(given, 0)
    blocks = given.memory.view(2, channels, HEIGHT // 4, 4, WIDTH // 4, 4).numpy()
    expected = np.concatenate([given.extra.features[0].numpy(), blocks.mean((3, 5)), blocks.max((3, 5))], axis=1)
    np.testing.assert_allclose(seen[0].numpy(), expected, rtol=1e-5)


def test_the_way_down_and_up_is_wired_by_levels(fast_cfg):
    cnn = build_control_cnn(fast_cfg()).eval()
    perturb(cnn)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    parts = {"meet": cnn.meet, "join": cnn.join, "down 0": cnn.down[0], "down 1": cnn.down[1]}
    parts |= {"up 0": cnn.up[0], "up 1": cnn.up[1]}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, arguments, out, name=name: seen.update({name: (arguments[0], out)}))
    given = inputs()
    out = cnn(given, 0)

    def twice(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    torch.testing.assert_close(seen["join"][0], torch.cat([seen["meet"][1], given.extra.features[1]], 1))
    assert seen["down 0"][0] is seen["join"][1] and seen["down 1"][0] is seen["down 0"][1]
    assert seen["down 1"][1].shape == (2, 8, 1, 2)
    torch.testing.assert_close(seen["up 0"][0], seen["down 0"][1] + twice(seen["down 1"][1]))
    torch.testing.assert_close(seen["up 1"][0], seen["join"][1] + twice(seen["up 0"][1]))
    assert out is seen["up 1"][1]


def test_the_fine_map_is_that_of_the_coarse_one_beside_features_and_memory(fast_cfg):
    cfg = fast_cfg({"BOX_PROPOSER.CONTROL_CNN": "FineFeatureControlCNN"})
    cnn = build_control_cnn(cfg).eval()
    perturb(cnn)
    assert cnn.map_size == (8, 16) and cnn.out_channels == 4
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    parts = {"meet": cnn.meet, "meet_fine": cnn.meet_fine, "up": cnn.up[1], "finest": cnn.finest}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, arguments, out, name=name: seen.update({name: (arguments[0], out)}))
    out = cnn(inputs(), 0)
    assert torch.equal(seen["meet_fine"][0], seen["meet"][0])
    reduced = torch.einsum("bchw,dc->bdhw", seen["up"][1], cnn.to_fine.weight[..., 0, 0])
    larger = (reduced + cnn.to_fine.bias[:, None, None]).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(seen["finest"][0], seen["meet_fine"][1] + larger)
    assert out is seen["finest"][1] and out.shape == (2, 4, 8, 16)


def test_feature_control_cnn_never_looks_at_the_image(fast_cfg):
    cnn = build_control_cnn(fast_cfg()).eval()
    given = inputs()
    expected = cnn(given, 0)
    given.image = torch.full_like(given.image, torch.nan)
    assert torch.equal(cnn(given, 0), expected)


def test_feature_control_cnn_uses_the_steps_own_norm(fast_cfg):
    cnn = build_control_cnn(fast_cfg({"NORM": "per_step", **UNROLLED}))
    cnn(inputs(), 1)
    for name, values in cnn.state_dict().items():
        if name.endswith("running_mean"):
            assert (values[[0, 2]] == 0).all() and (values[1] != 0).any(), name


def test_images_of_a_batch_do_not_see_each_other_in_evaluation(fast_cfg, conv_cfg):
    for cfg in (fast_cfg(), conv_cfg()):
        cnn = build_control_cnn(cfg).eval()
        perturb(cnn)
        together = cnn(inputs(3), 0)
        torch.testing.assert_close(cnn(inputs(3).select(torch.tensor([1])), 0), together[1:2])


@pytest.mark.parametrize("name", ["FeatureControlCNN", "FineFeatureControlCNN"])
def test_residual_blocks_start_as_their_shortcut_and_everything_learns(fast_cfg, name: str):
    cnn = build_control_cnn(fast_cfg({"BOX_PROPOSER.CONTROL_CNN": name}))
    blocks = [module for module in cnn.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 3
    assert all((block.second.norm.weight == 0).all() for block in blocks)
    perturb(cnn)
    given = inputs()
    features = [level.requires_grad_() for level in given.extra.features]
    cnn(given, 0).square().sum().backward()
    for name, parameter in cnn.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name
    assert all((level.grad != 0).any() for level in features)


@pytest.mark.parametrize("names", [["memory"], ["features"], ["image", "memory", "features"], ["image", "memory"]])
def test_feature_control_cnn_refuses_other_inputs(fast_cfg, names: list[str]):
    with pytest.raises(ValueError, match=rf"{KEY}.INPUTS is \['{names[0]}'.*FeatureControlCNN.*'memory', 'features'"):
        build_control_cnn(fast_cfg({"BOX_PROPOSER.INPUTS": names}))


def test_feature_control_cnn_refuses_features_that_nobody_makes(fast_cfg):
    with pytest.raises(ValueError, match=f"{KEY}.INPUTS names 'features'.*FEATURE_CHANNELS"):
        build_control_cnn(fast_cfg({"PREPROCESSOR.FEATURE_CHANNELS": []}))


def test_feature_control_cnn_refuses_an_image_that_cannot_be_halved_often_enough(fast_cfg):
    cfg = fast_cfg()
    cfg.INPUT.IMAGE_SIZE = [32, 48]
    with pytest.raises(ValueError, match=r"INPUT.IMAGE_SIZE is \[32, 48\].*multiples of 32"):
        build_control_cnn(cfg)


def test_a_control_cnn_without_a_config():
    cnn = FeatureControlCNN(
        memory_channels=1,
        feature_channels=(4, 6),
        channels=5,
        map_size=(4, 8),
        norm="group",
        time_steps=1,
        initializer="kaiming",
    )
    assert cnn(inputs(), 7).shape == (2, 5, 4, 8)
