"""The residual U-Net on the patch: sizes, skips, and configs that cannot work."""

import pytest
import torch
from torch import Tensor

from rec_attend_d2.layers.residual import ResidualBlock
from rec_attend_d2.modeling.residual_head import ResidualPatchHead
from rec_attend_d2.modeling.segmentation_head import build_segmentation_head

KEY = "MODEL.REC_ATTEND.SEGMENTATION_HEAD"
# Image, memory and the four channels of the finest features.
CHANNELS = 8


# A patch passes the head once per time step, so that there are statistics for each.
UNROLLED = {"TRAINING.MODE": "SequentialSteps"}


def patches(batch: int = 2) -> Tensor:
    return torch.rand(batch, CHANNELS, 12, 16, generator=torch.Generator().manual_seed(5))


def perturb(head: ResidualPatchHead) -> None:
    """Leave the special values of fresh parameters."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("norm", ["per_step", "shared", "group", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_logits_of_the_patchs_size_and_deepest_features(fast_cfg, norm: str, training: bool):
    head = build_segmentation_head(fast_cfg({"NORM": norm, **UNROLLED})).train(training)
    assert isinstance(head, ResidualPatchHead) and head.gives_logits
    perturb(head)
    logits, features = head(patches(), 1)
    assert logits.shape == (2, 12, 16)
    assert features.shape == (2, *head.feature_shape) == (2, 8, 3, 4)
    assert (logits < 0).any() and (logits > 0).any()
    assert (features >= 0).all()


@pytest.mark.parametrize(
    ("channels", "pools", "feature_shape"),
    [([6], [1], (6, 12, 16)), ([4, 4, 6], [1, 1, 2], (6, 6, 8)), ([4, 6], [1, 4], (6, 3, 4))],
)
def test_levels_follow_the_config(fast_cfg, channels: list[int], pools: list[int], feature_shape: tuple[int, int, int]):
    overrides = {"SEGMENTATION_HEAD.CONV_CHANNELS": channels, "SEGMENTATION_HEAD.CONV_POOLS": pools}
    head = build_segmentation_head(fast_cfg(overrides))
    assert head.feature_shape == feature_shape
    logits, features = head(patches(), 0)
    assert logits.shape == (2, 12, 16) and features.shape == (2, *feature_shape)
    assert len(head.down) == len(head.up) == len(channels) - 1


def test_the_way_up_takes_a_skip_per_level(fast_cfg):
    head = build_segmentation_head(fast_cfg()).eval()
    perturb(head)
    seen = []
    for conv in head.up:
        conv.register_forward_hook(lambda module, arguments, out: seen.append((arguments[0], out)))
    logits, deepest = head(patches(), 2)

    def twice(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    first = head.stem[1](head.stem[0](patches(), 2), 2)
    second = head.down[0](first, 2)
    torch.testing.assert_close(deepest, head.down[1](second, 2))
    torch.testing.assert_close(seen[0][0], torch.cat([twice(deepest), second], 1))
    torch.testing.assert_close(seen[1][0], torch.cat([twice(seen[0][1]), first], 1))
    weight, bias = head.mask.weight[0, :, 0, 0], head.mask.bias
    torch.testing.assert_close(logits, torch.einsum("bchw,c->bhw", seen[1][1], weight) + bias)


def test_each_step_has_its_own_norm_and_the_same_weights(fast_cfg):
    per_step = build_segmentation_head(fast_cfg({"NORM": "per_step", **UNROLLED})).train()
    per_step(patches() * 3 + 2, 1)
    per_step.eval()
    assert not torch.allclose(per_step(patches(), 0)[0], per_step(patches(), 1)[0])
    for norm in ("shared", "group"):
        head = build_segmentation_head(fast_cfg({"NORM": norm, **UNROLLED})).train()
        head(patches() * 3 + 2, 1)
        head.eval()
        assert torch.equal(head(patches(), 0)[0], head(patches(), 1)[0])


def test_patches_do_not_see_each_other_in_evaluation(fast_cfg):
    head = build_segmentation_head(fast_cfg()).eval()
    perturb(head)
    together, alone = head(patches(3), 0), head(patches(3)[1:2], 0)
    torch.testing.assert_close(alone[0], together[0][1:2])
    torch.testing.assert_close(alone[1], together[1][1:2])


def test_residual_blocks_start_as_their_shortcut(fast_cfg):
    head = build_segmentation_head(fast_cfg())
    blocks = [module for module in head.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 2
    assert all((block.second.norm.weight == 0).all() for block in blocks)


def test_everything_learns_from_the_logits(fast_cfg):
    head = build_segmentation_head(fast_cfg())
    perturb(head)
    head(patches(), 0)[0].square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_more_maps_make_more_channels(fast_cfg):
    overrides = {"MEMORY.NAME": "BoundaryMemory", "SEGMENTATION_HEAD.INPUTS": ["image", "memory"]}
    head = build_segmentation_head(fast_cfg(overrides))
    assert head.stem[0].conv.weight.shape[1] == 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"CONV_POOLS": [2, 1, 2]}, rf"{KEY}.CONV_POOLS must start with 1 for ResidualPatchHead: \[2, 1, 2\]"),
        ({"CONV_POOLS": [1, 2]}, f"{KEY}.CONV_CHANNELS and {KEY}.CONV_POOLS need one entry per layer"),
        ({"CONV_CHANNELS": [], "CONV_POOLS": []}, f"{KEY}.CONV_CHANNELS and {KEY}.CONV_POOLS need one entry per layer"),
        (
            {"CONV_POOLS": [1, 2, 5]},
            rf"{KEY}.CONV_POOLS = \[1, 2, 5\].*MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE = \[12, 16\]",
        ),
        ({"INPUTS": ["image", "foreground"]}, f"{KEY}.INPUTS names 'foreground'"),
        ({"INPUTS": []}, f"{KEY}.INPUTS is empty"),
    ],
    ids=["first pool", "too few pools", "no layers", "patch size", "no such map", "no map"],
)
def test_levels_and_inputs_that_do_not_fit_are_refused(fast_cfg, overrides: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_segmentation_head(fast_cfg({f"SEGMENTATION_HEAD.{key}": value for key, value in overrides.items()}))


def test_single_steps_share_one_set_of_statistics(fast_cfg):
    norm = build_segmentation_head(fast_cfg()).stem[0].norm
    assert norm.running_mean.shape[0] == 1
    # Not the small share that averages over the time steps of a sequence.
    assert norm.momentum == pytest.approx(0.1)
