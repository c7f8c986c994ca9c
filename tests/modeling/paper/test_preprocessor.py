"""Preprocessors: the maps of the batch, or none, and what is refused."""

import pytest
import torch

from rec_attend_d2.modeling.paper.preprocessor import GivenMaps, NoPreprocessor, build_preprocessor

IMAGES = torch.zeros(2, 3, 32, 48)


def given_maps(angle_bins: int, foreground_classes: int) -> dict:
    return {
        "PREPROCESSOR.NAME": "GivenMaps",
        "PREPROCESSOR.ANGLE_BINS": angle_bins,
        "PREPROCESSOR.FOREGROUND_CLASSES": foreground_classes,
    }


def test_no_preprocessor_adds_nothing(tiny_cfg, make_batch):
    part = build_preprocessor(tiny_cfg())
    assert isinstance(part, NoPreprocessor)
    extra = part(IMAGES, make_batch([1, 2], angle_bins=8))
    assert extra.angle is None and extra.foreground is None


@pytest.mark.parametrize(("angle_bins", "foreground_classes"), [(8, 1), (8, 0), (0, 3), (0, 0)])
def test_given_maps_stacks_those_that_are_asked_for(tiny_cfg, make_batch, angle_bins: int, foreground_classes: int):
    part = build_preprocessor(tiny_cfg(given_maps(angle_bins, foreground_classes)))
    assert isinstance(part, GivenMaps)
    batch = make_batch([1, 2], angle_bins=8, foreground_classes=foreground_classes or 1)
    extra = part(IMAGES.double(), batch)
    for result, key, channels in (
        (extra.angle, "angle_map", angle_bins),
        (extra.foreground, "foreground", foreground_classes),
    ):
        if channels == 0:
            assert result is None
        else:
            assert result.dtype == torch.float64
            for index in range(2):
                assert torch.equal(result[index].float(), batch[index][key])


@pytest.mark.parametrize("key", ["ANGLE_BINS", "FOREGROUND_CLASSES"])
def test_no_preprocessor_refuses_to_be_asked_for_maps(tiny_cfg, key: str):
    with pytest.raises(ValueError, match=f"NoPreprocessor.*{key}"):
        build_preprocessor(tiny_cfg({f"PREPROCESSOR.{key}": 1}))


@pytest.mark.parametrize("key", ["angle_map", "foreground"])
def test_a_missing_map_is_refused_with_the_file(tiny_cfg, make_batch, key: str):
    part = build_preprocessor(tiny_cfg(given_maps(8, 3)))
    batch = make_batch([1, 2], angle_bins=8, foreground_classes=3)
    del batch[1][key]
    with pytest.raises(ValueError, match=f"image1.png.*'{key}'"):
        part(IMAGES, batch)


@pytest.mark.parametrize("shape", [(4, 32, 48), (8, 32, 47), (8, 48, 32)])
def test_a_map_of_another_shape_is_refused(tiny_cfg, make_batch, shape: tuple[int, int, int]):
    part = build_preprocessor(tiny_cfg(given_maps(8, 0)))
    batch = make_batch([1, 2], angle_bins=8)
    batch[0]["angle_map"] = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"image0.png.*expected \(8, 32, 48\)"):
        part(IMAGES, batch)
