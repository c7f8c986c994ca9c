"""The image encoder: sizes, how the levels meet, one set of statistics, and configs that cannot work."""

import pytest
import torch
from torch import Tensor

from rec_attend_d2.layers.residual import ResidualBlock
from rec_attend_d2.modeling.image_encoder import ImageEncoder
from rec_attend_d2.modeling.preprocessor import build_preprocessor

KEY = "MODEL.REC_ATTEND.PREPROCESSOR"
HEIGHT, WIDTH = 32, 64


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def encoder(fast_cfg) -> ImageEncoder:
    """An encoder in evaluation mode whose parameters have left their special initial values."""
    encoder = build_preprocessor(fast_cfg()).eval()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return encoder


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@pytest.mark.parametrize("norm", ["per_step", "shared", "group", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_features_at_a_quarter_and_an_eighth_of_the_images_size(fast_cfg, norm: str, training: bool):
    encoder = build_preprocessor(fast_cfg({"NORM": norm})).train(training)
    assert isinstance(encoder, ImageEncoder)
    extra = encoder(images(), [])
    assert [tuple(level.shape) for level in extra.features] == [(2, 4, 8, 16), (2, 6, 4, 8)]
    assert extra.angle is None and extra.foreground is None


def test_every_level_halves_the_size_and_has_its_channels(encoder: ImageEncoder):
    shapes = []
    stages = [encoder.stem, encoder.quarter[-1], encoder.eighth[-1], encoder.sixteenth, encoder.deepest]
    for stage in stages:
        stage.register_forward_hook(lambda module, arguments, out: shapes.append(tuple(out.shape[1:])))
    encoder(images(), [])
    assert shapes == [(4, 16, 32), (4, 8, 16), (6, 4, 8), (6, 2, 4), (8, 1, 2)]


def test_each_level_adds_the_enlarged_coarser_one(encoder: ImageEncoder):
    outputs: dict[str, Tensor] = {}
    seen: list[Tensor] = []
    stages = {"quarter": encoder.quarter[-1], "eighth": encoder.eighth[-1]}
    stages |= {"sixteenth": encoder.sixteenth, "deepest": encoder.deepest}
    for name, stage in stages.items():
        stage.register_forward_hook(lambda _, arguments, out, name=name: outputs.update({name: out}))
    for conv in encoder.smooth:
        conv.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    fine, coarse = encoder(images(), []).features

    quarter, eighth, sixteenth, deepest = (
        lateral(outputs[name]) for lateral, name in zip(encoder.lateral, stages, strict=True)
    )
    torch.testing.assert_close(seen[0], sixteenth + twice(deepest))
    torch.testing.assert_close(seen[1], eighth + twice(encoder.smooth[2](seen[0], 0)))
    torch.testing.assert_close(seen[2], quarter + twice(encoder.to_fine(coarse)))
    torch.testing.assert_close(coarse, encoder.smooth[1](seen[1], 0))
    torch.testing.assert_close(fine, encoder.smooth[0](seen[2], 0))


def test_there_is_one_set_of_statistics_however_many_time_steps(fast_cfg):
    encoder = build_preprocessor(fast_cfg({"NORM": "per_step", "TIME_STEPS": 7}))
    norms = {name: value for name, value in encoder.state_dict().items() if ".norm." in name}
    assert norms and all(value.shape[0] == 1 for value in norms.values())


def test_shared_statistics_move_by_a_tenth_per_image_batch(fast_cfg):
    # A part that runs at every one of T steps moves them by less at a time.
    encoder = build_preprocessor(fast_cfg({"NORM": "shared", "TIME_STEPS": 7})).train()
    encoder(images(), [])
    mean = encoder.stem.conv(images()).mean((0, 2, 3))
    torch.testing.assert_close(encoder.stem.norm.running_mean[0], 0.1 * mean)


def test_images_of_a_batch_do_not_see_each_other_in_evaluation(encoder: ImageEncoder):
    together = encoder(images(3), []).features
    alone = encoder(images(3)[1:2], []).features
    for whole, part in zip(together, alone, strict=True):
        torch.testing.assert_close(part, whole[1:2])


def test_residual_blocks_start_as_their_shortcut(fast_cfg):
    encoder = build_preprocessor(fast_cfg())
    blocks = [module for module in encoder.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 5
    assert all((block.second.norm.weight == 0).all() for block in blocks)


def test_everything_learns_from_the_finest_map(encoder: ImageEncoder):
    encoder(images(), []).features[0].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_the_initializer_of_the_config_is_used(fast_cfg):
    encoder = build_preprocessor(fast_cfg({"INIT": "truncated_normal"}))
    convs = [module for module in encoder.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(conv.weight.abs().max() <= 0.02 for conv in convs)


@pytest.mark.parametrize("key", ["ANGLE_BINS", "FOREGROUND_CLASSES"])
def test_maps_that_it_does_not_make_are_refused(fast_cfg, key: str):
    with pytest.raises(ValueError, match=f"{KEY}.NAME 'ImageEncoder' makes no angle or foreground map"):
        build_preprocessor(fast_cfg({f"PREPROCESSOR.{key}": 2}))


@pytest.mark.parametrize(
    ("key", "channels", "expected"),
    [("ENCODER_CHANNELS", [4, 4, 6, 6], 5), ("FEATURE_CHANNELS", [4], 2), ("FEATURE_CHANNELS", [], 2)],
)
def test_a_wrong_number_of_levels_is_refused(fast_cfg, key: str, channels: list[int], expected: int):
    message = rf"{KEY}.{key} needs {expected} numbers of channels, got \[{', '.join(map(str, channels))}\]"
    with pytest.raises(ValueError, match=message):
        build_preprocessor(fast_cfg({f"PREPROCESSOR.{key}": channels}))


@pytest.mark.parametrize("size", [[32, 48], [40, 64]])
def test_an_image_that_cannot_be_halved_five_times_is_refused(fast_cfg, size: list[int]):
    cfg = fast_cfg()
    cfg.INPUT.IMAGE_SIZE = size
    with pytest.raises(ValueError, match=rf"INPUT.IMAGE_SIZE is \[{size[0]}, {size[1]}\].*multiples of 32"):
        build_preprocessor(cfg)
