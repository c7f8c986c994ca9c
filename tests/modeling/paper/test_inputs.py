"""What the networks see: channel counts, their order, and what is refused."""

import pytest
import torch

from rec_attend_d2.modeling.paper.inputs import check_conv_layers, feature_size, input_channels, input_maps
from rec_attend_d2.modeling.steps import ExtraMaps, StepInputs

KEY = "MODEL.REC_ATTEND.BOX_PROPOSER.INPUTS"
ALL = ["image", "memory", "angle", "foreground"]


def concatenated(image: torch.Tensor, memory: torch.Tensor, extra: ExtraMaps, names: list[str]) -> torch.Tensor:
    return torch.cat(input_maps(StepInputs(image, memory, extra), names), dim=1)


@pytest.fixture
def extra() -> ExtraMaps:
    return ExtraMaps(angle=torch.full((2, 8, 4, 5), 3.0), foreground=torch.full((2, 9, 4, 5), 4.0))


@pytest.mark.parametrize(
    ("names", "channels"),
    [(["image"], 3), (["memory", "image"], 4), (["image", "memory", "angle"], 12), (ALL, 21), (["foreground"], 9)],
)
def test_number_of_channels(tiny_cfg, names: list[str], channels: int):
    cfg = tiny_cfg({"PREPROCESSOR.ANGLE_BINS": 8, "PREPROCESSOR.FOREGROUND_CLASSES": 9})
    assert input_channels(cfg, names, KEY) == channels


@pytest.mark.parametrize("names", [ALL, ALL[::-1], ["foreground", "image", "angle", "memory"]])
def test_order_is_image_memory_angle_foreground_however_they_are_named(extra: ExtraMaps, names: list[str]):
    image, memory = torch.full((2, 3, 4, 5), 1.0), torch.full((2, 4, 5), 2.0)
    result = concatenated(image, memory, extra, names)
    assert result.shape == (2, 21, 4, 5)
    assert result[1, :, 3, 2].tolist() == [1.0] * 3 + [2.0] + [3.0] * 8 + [4.0] * 9


def test_only_named_maps_are_seen(extra: ExtraMaps):
    image, memory = torch.full((2, 3, 4, 5), 1.0), torch.full((2, 4, 5), 2.0)
    assert concatenated(image, memory, extra, ["angle", "memory"])[0, :, 0, 0].tolist() == [2.0] + [3.0] * 8


def test_naming_a_map_twice_counts_once(tiny_cfg):
    names = ["image", "memory", "image"]
    seen = concatenated(torch.zeros(1, 3, 4, 5), torch.zeros(1, 4, 5), ExtraMaps(), names)
    assert seen.shape[1] == input_channels(tiny_cfg(), names, KEY) == 4


def test_an_unknown_map_is_refused(tiny_cfg):
    with pytest.raises(ValueError, match=f"{KEY} names 'depth'. Choose from: image, memory, angle, foreground"):
        input_channels(tiny_cfg(), ["image", "depth"], KEY)


def test_no_map_at_all_is_refused(tiny_cfg):
    with pytest.raises(ValueError, match=KEY):
        input_channels(tiny_cfg(), [], KEY)


@pytest.mark.parametrize("name", ["angle", "foreground"])
def test_a_map_the_preprocessor_does_not_make_is_refused(tiny_cfg, name: str):
    with pytest.raises(ValueError, match=f"{KEY} names '{name}'.*MODEL.REC_ATTEND.PREPROCESSOR"):
        input_channels(tiny_cfg(), ["image", name], KEY)


@pytest.mark.parametrize("name", ["angle", "foreground"])
def test_a_map_missing_from_the_batch_is_an_error(name: str):
    with pytest.raises(ValueError, match=f"'{name}'"):
        concatenated(torch.zeros(1, 3, 4, 5), torch.zeros(1, 4, 5), ExtraMaps(), ["image", name])


@pytest.mark.parametrize(("channels", "pools"), [([4, 4], [2]), ([4], [2, 1]), ([], [])])
def test_conv_layers_need_a_channel_and_a_pool_each(tiny_cfg, channels: list[int], pools: list[int]):
    overrides = {"BOX_PROPOSER.CONV_CHANNELS": channels, "BOX_PROPOSER.CONV_POOLS": pools}
    with pytest.raises(ValueError, match="A.NODE.CONV_CHANNELS and A.NODE.CONV_POOLS need one entry per layer"):
        check_conv_layers(tiny_cfg(overrides).MODEL.REC_ATTEND.BOX_PROPOSER, "A.NODE")


@pytest.mark.parametrize(
    ("size", "pools", "expected"), [((32, 48), [2, 2, 1, 2], (4, 6)), ((5, 7), [1, 1], (5, 7)), ((9, 6), [3], (3, 2))]
)
def test_feature_size(size: tuple[int, int], pools: list[int], expected: tuple[int, int]):
    assert feature_size(size, pools, "POOLS", "SIZE") == expected


@pytest.mark.parametrize("size", [(32, 44), (36, 48), (36, 44)])
def test_pools_that_do_not_divide_the_input_are_refused(size: tuple[int, int]):
    with pytest.raises(ValueError, match=r"A\.POOLS = \[2, 2, 1, 2\].*8 times.*B\.SIZE.*multiples of 8"):
        feature_size(size, [2, 2, 1, 2], "A.POOLS", "B.SIZE")
