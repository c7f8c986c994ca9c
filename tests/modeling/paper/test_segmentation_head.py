"""The segmentation head: shapes, wiring, and configs that cannot work."""

import pytest
import torch

from rec_attend_d2.modeling.paper.segmentation_head import PatchConvDeconvHead, deconv_strides

KEY = "MODEL.REC_ATTEND.SEGMENTATION_HEAD"


@pytest.mark.parametrize("training", [True, False])
def test_mask_of_the_patchs_size_and_deepest_features(tiny_cfg, training: bool):
    head = PatchConvDeconvHead(tiny_cfg()).train(training)
    mask, features = head(torch.rand(2, 4, 16, 24), 1)
    assert mask.shape == (2, 16, 24)
    assert features.shape == (2, 6, 4, 6)
    assert head.feature_shape == (6, 4, 6)
    assert (mask >= 0).all() and (mask > 0).any()


def test_layers_and_skips_follow_the_config(tiny_cfg):
    head = PatchConvDeconvHead(tiny_cfg())
    assert [layer.conv.weight.shape[:2] for layer in head.conv.layers] == [(4, 4), (4, 4), (6, 4)]
    # A transposed conv's weight is [in, out, 3, 3]; from the second on the input has a skip: conv 2, conv 1, the patch.
    expected = [(6, 6), (6 + 4, 4), (4 + 4, 4), (4 + 4, 1)]
    assert [layer.conv.weight.shape[:2] for layer in head.deconv.layers] == expected


def test_deconv_layers_see_the_conv_features_and_the_patch(tiny_cfg):
    head = PatchConvDeconvHead(tiny_cfg()).eval()
    patch = torch.rand(2, 4, 16, 24)
    seen = []
    for layer in head.deconv.layers:
        layer.register_forward_hook(lambda module, arguments, output: seen.append((arguments[0], output)))
    mask, _ = head(patch, 2)

    first = head.conv.layers[0](patch, 2)
    second = head.conv.layers[1](first, 2)
    deepest = head.conv.layers[2](second, 2)
    torch.testing.assert_close(seen[0][0], deepest)
    for index, skip in enumerate((second, first, patch), start=1):
        torch.testing.assert_close(seen[index][0], torch.cat([seen[index - 1][1], skip], dim=1))
    torch.testing.assert_close(mask, seen[3][1][:, 0])


def test_each_step_has_its_own_norm_and_the_same_weights(tiny_cfg):
    patch = torch.rand(2, 4, 16, 24)
    per_step = PatchConvDeconvHead(tiny_cfg()).train()
    per_step(patch * 3 + 2, 1)
    per_step.eval()
    assert not torch.allclose(per_step(patch, 0)[0], per_step(patch, 1)[0])
    shared = PatchConvDeconvHead(tiny_cfg({"NORM": "shared"})).train()
    shared(patch * 3 + 2, 1)
    shared.eval()
    assert torch.equal(shared(patch, 0)[0], shared(patch, 1)[0])


def test_more_maps_make_more_channels(tiny_cfg):
    overrides = {
        "PREPROCESSOR.NAME": "GivenMaps",
        "PREPROCESSOR.ANGLE_BINS": 8,
        "SEGMENTATION_HEAD.INPUTS": ["image", "memory", "angle"],
    }
    head = PatchConvDeconvHead(tiny_cfg(overrides))
    assert head(torch.rand(1, 12, 16, 24), 0)[0].shape == (1, 16, 24)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"CONV_POOLS": [4, 1, 2]}, r"CONV_POOLS = \[4, 1, 2\].*only 1 and 2"),
        ({"DECONV_CHANNELS": [6, 4, 1]}, "DECONV_CHANNELS needs one entry more than CONV_CHANNELS.*3 and 3"),
        ({"DECONV_CHANNELS": [6, 4, 4, 2]}, "DECONV_CHANNELS must end with 1.*2"),
        (
            {"CONV_POOLS": [2, 1, 2], "CONV_CHANNELS": [4, 6], "DECONV_CHANNELS": [4, 4, 1]},
            "(?=.*CONV_CHANNELS)(?=.*CONV_POOLS)",
        ),
    ],
    ids=["pool 4", "too few channels", "two masks", "conv layers"],
)
def test_layers_that_do_not_lead_back_to_the_patch_are_refused(tiny_cfg, overrides: dict, message: str):
    with pytest.raises(ValueError, match=f"(?=.*{KEY}).*{message}"):
        PatchConvDeconvHead(tiny_cfg({f"SEGMENTATION_HEAD.{key}": value for key, value in overrides.items()}))


def test_pools_that_do_not_divide_the_patch_are_refused(tiny_cfg):
    with pytest.raises(ValueError, match=rf"{KEY}.CONV_POOLS.*MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE = \[16, 22\]"):
        PatchConvDeconvHead(tiny_cfg({"ATTENTION.PATCH_SIZE": [16, 22]}))


def test_a_map_that_nobody_makes_is_refused(tiny_cfg):
    with pytest.raises(ValueError, match=f"{KEY}.INPUTS names 'foreground'"):
        PatchConvDeconvHead(tiny_cfg({"SEGMENTATION_HEAD.INPUTS": ["image", "foreground"]}))


def test_strides_undo_the_pools_in_reverse():
    assert deconv_strides([1, 2, 1, 2, 1, 2]) == [2, 1, 2, 1, 2, 1, 1]
