"""From soft masks to instances, against loops over pixels."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from rec_attend_d2.modeling.paper.postprocessing import (
    StrongestInstance,
    foreground_area,
    majority_classes,
    resize_maps,
    strongest_instance,
)


def make_postprocessor(**options) -> StrongestInstance:
    """Without scores cut, smoothing, foreground and areas, unless asked for."""
    arguments = {
        "score_threshold": 0.0,
        "mask_threshold": 0.3,
        "bilateral_diameter": 0,
        "bilateral_sigma": 10.0,
        "dilation": 0,
        "use_foreground": False,
        "min_area": 0,
    }
    return StrongestInstance(**{**arguments, **options})


def soft_masks(count: int, height: int = 9, width: int = 13) -> torch.Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(count))


def areas(instances: Instances) -> list[int]:
    return instances.pred_masks.flatten(1).sum(1).tolist()


def test_every_pixel_goes_to_its_strongest_instance_above_the_threshold():
    maps = soft_masks(4).numpy()
    result = strongest_instance(maps, 0.6)
    for y in range(9):
        for x in range(13):
            values = maps[:, y, x].tolist()
            strongest = values.index(max(values))
            assert result[:, y, x].tolist() == [n == strongest and values[n] > 0.6 for n in range(4)]


def test_a_tie_goes_to_one_instance_only():
    assert strongest_instance(np.full((3, 2, 2), 0.5), 0.3).sum(0).tolist() == [[1, 1], [1, 1]]


def test_strongest_of_no_instances():
    assert strongest_instance(np.zeros((0, 4, 5)), 0.3).shape == (0, 4, 5)


@pytest.mark.parametrize("size", [(61, 90), (20, 31), (13, 64)])
@pytest.mark.parametrize(("diameter", "dilation"), [(0, 0), (5, 0), (0, 5), (5, 5)])
def test_working_in_windows_changes_nothing(size: tuple[int, int], diameter: int, dilation: int):
    """Resize, filters and the strongest map on the whole image, written out."""
    generator = np.random.default_rng(3)
    masks = generator.random((6, 20, 31), dtype=np.float32) * 0.29
    for mask in masks[:5]:
        y, x = generator.integers(0, 20), generator.integers(0, 31)
        mask[max(0, y - 4) : y + 5, max(0, x - 6) : x + 7] += 0.6
    masks[4] += 0.01  # also above the threshold here and there, at the image's border too
    postprocessor = make_postprocessor(
        mask_threshold=0.3, bilateral_diameter=diameter, bilateral_sigma=10.0, dilation=dilation
    )
    result = postprocessor(torch.from_numpy(masks), torch.ones(6), None, size).pred_masks.numpy()
    maps = resize_maps(masks, *size)
    if diameter:
        maps = np.stack([cv2.bilateralFilter(m, diameter, 10.0, 10.0) for m in maps])
    if dilation:
        maps = np.stack([cv2.dilate(m, np.ones((dilation, dilation), np.uint8)) for m in maps])
    expected = strongest_instance(maps, 0.3)
    assert expected[5].sum() == 0 and expected[:5].any(axis=(1, 2)).all()
    np.testing.assert_array_equal(result, expected[:5])


def test_scores_weigh_the_masks():
    masks, scores = soft_masks(4), torch.tensor([0.9, 0.7, 0.55, 0.95])
    result = make_postprocessor()(masks, scores, None, (9, 13))
    weighted = masks.numpy() * scores.numpy()[:, None, None]
    expected = np.stack([(weighted.argmax(0) == n) & (weighted[n] > 0.3) for n in range(4)])
    assert np.array_equal(result.pred_masks.numpy(), expected)
    assert result.scores.tolist() == pytest.approx(scores.tolist())
    assert result.pred_masks.sum(0).max() == 1


def test_boxes_are_tight():
    result = make_postprocessor(mask_threshold=0.8)(soft_masks(4) ** 3, torch.ones(4), None, (9, 13))
    assert len(result) == 4
    for mask, box in zip(result.pred_masks.numpy(), result.pred_boxes.tensor.tolist(), strict=True):
        ys, xs = np.nonzero(mask)
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_steps_below_the_score_threshold_are_no_instances():
    masks = torch.zeros(3, 4, 5)
    masks[0, :2] = 0.7  # times 0.5 is 0.35
    masks[1] = 1.0  # times 0.49 would be 0.49
    masks[2, 2:] = 0.7
    result = make_postprocessor(score_threshold=0.5)(masks, torch.tensor([0.5, 0.49, 0.6]), None, (4, 5))
    assert result.scores.tolist() == pytest.approx([0.5, 0.6])
    assert torch.equal(result.pred_masks, masks[[0, 2]] > 0)


@pytest.mark.parametrize("size", [(17, 31), (64, 96), (9, 13), (5, 7), (1, 1)])
def test_result_has_the_original_size(size: tuple[int, int]):
    result = make_postprocessor()(soft_masks(3), torch.ones(3), None, size)
    assert result.image_size == size
    assert result.pred_masks.shape[1:] == size
    assert result.pred_masks.dtype == torch.bool
    # Every map is above 0.3 somewhere and every pixel has its instance: three uniform numbers are rarely all small.
    assert result.pred_masks.sum(0).float().mean() > 0.9


def test_resizing_keeps_proportions():
    masks = torch.zeros(1, 32, 48)
    masks[0, 8:24, :24] = 1
    result = make_postprocessor(mask_threshold=0.5)(masks, torch.ones(1), None, (65, 97))
    x0, y0, x1, y1 = result.pred_boxes.tensor[0].tolist()
    assert (x0, y0) == (0, pytest.approx(65 / 4, abs=1))
    assert (x1, y1) == (pytest.approx(97 / 2, abs=1), pytest.approx(65 * 3 / 4, abs=1))


def test_bilinear_resize_of_a_ramp_is_a_ramp():
    ramp = np.arange(8, dtype=np.float32)[None, :, None].repeat(6, 2)
    large = resize_maps(ramp, 16, 9)
    assert large.shape == (1, 16, 9)
    # Pixel y of the large map stands at (y + 0.5) / 2 - 0.5 of the small one, and no farther than its rim.
    expected = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)
    np.testing.assert_allclose(large[0], expected[:, None].repeat(9, 1), atol=1e-5)


def test_resizing_no_maps():
    assert resize_maps(np.zeros((0, 4, 5), np.float32), 7, 9).shape == (0, 7, 9)


def test_bilateral_filter_removes_specks_and_fills_pinholes():
    masks = torch.zeros(2, 20, 30)
    masks[0, 5:15, 5:15] = 1
    masks[0, 10, 10] = 0
    masks[1, 10, 25] = 1
    rough = make_postprocessor()(masks, torch.ones(2), None, (20, 30))
    assert areas(rough) == [99, 1]
    smooth = make_postprocessor(bilateral_diameter=5)(masks, torch.ones(2), None, (20, 30))
    assert len(smooth) == 1
    assert smooth.pred_masks[0, 10, 10]
    assert smooth.pred_masks[0, 7:13, 7:13].all()
    assert smooth.scores.tolist() == [1]


def test_a_small_sigma_keeps_values_that_differ():
    masks = torch.zeros(1, 20, 30)
    masks[0, 10, 25] = 1
    result = make_postprocessor(bilateral_diameter=5, bilateral_sigma=0.05)(masks, torch.ones(1), None, (20, 30))
    assert areas(result) == [1]


@pytest.mark.parametrize("side", [3, 5])
def test_dilation_makes_a_square_of_a_pixel(side: int):
    masks = torch.zeros(1, 20, 30)
    masks[0, 8, 12] = 1
    masks[0, 0, 0] = 1
    grown = make_postprocessor(dilation=side)(masks, torch.ones(1), None, (20, 30)).pred_masks[0]
    expected = torch.zeros(20, 30, dtype=torch.bool)
    reach = side // 2
    expected[8 - reach : 9 + reach, 12 - reach : 13 + reach] = True
    expected[: reach + 1, : reach + 1] = True
    assert torch.equal(grown, expected)


@pytest.mark.parametrize(("min_area", "kept"), [(0, [12, 4, 1]), (1, [12, 4]), (4, [12]), (12, [])])
def test_instances_of_at_most_the_smallest_area_are_removed(min_area: int, kept: list[int]):
    masks = torch.zeros(4, 8, 9)
    masks[0, :3, :4] = 0.9
    masks[1, 5:7, 5:7] = 0.9
    masks[2, 0, 8] = 0.9
    result = make_postprocessor(min_area=min_area)(masks, torch.tensor([1.0, 0.9, 0.8, 0.7]), None, (8, 9))
    assert areas(result) == kept
    assert result.scores.tolist() == pytest.approx([1.0, 0.9, 0.8][: len(kept)])
    assert len(result.pred_boxes) == len(result.pred_classes) == len(kept)


def test_pixels_outside_the_foreground_are_removed():
    foreground = torch.full((1, 8, 9), 0.31)
    foreground[:, :, 5:] = 0.29
    masks = torch.full((1, 8, 9), 0.9)
    without = make_postprocessor()(masks, torch.ones(1), foreground, (8, 9))
    assert areas(without) == [72]
    result = make_postprocessor(use_foreground=True)(masks, torch.ones(1), foreground, (8, 9))
    assert areas(result) == [40]
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 5, 8]]


def test_an_instance_wholly_outside_the_foreground_is_left_out():
    masks = torch.zeros(2, 8, 9)
    masks[0, :4] = masks[1, 4:] = 0.9
    foreground = torch.zeros(1, 8, 9)
    foreground[0, 4:] = 1
    result = make_postprocessor(use_foreground=True)(masks, torch.tensor([0.9, 0.8]), foreground, (8, 9))
    assert result.scores.tolist() == pytest.approx([0.8])


def test_foreground_area_with_classes_is_where_background_is_unlikely():
    foreground = np.array([[[0.69, 0.71]], [[0.31, 0.0]], [[0.0, 0.29]]], np.float32)
    assert foreground_area(foreground).tolist() == [[True, False]]
    assert foreground_area(foreground[1:2]).tolist() == [[True, False]]


def test_class_is_the_most_probable_inside_the_mask_and_never_background():
    classes = torch.rand(4, 12, 14, generator=torch.Generator().manual_seed(0))
    classes[0] = 5.0
    classes = classes / classes.sum(0)
    result = make_postprocessor()(soft_masks(5, 12, 14), torch.ones(5), classes, (12, 14))
    expected = []
    for mask in result.pred_masks:
        means = [classes[k][mask].mean().item() for k in (1, 2, 3)]
        expected.append(means.index(max(means)))
    assert len(result) == 5 and len(set(expected)) > 1
    assert result.pred_classes.tolist() == expected


@pytest.mark.parametrize("foreground", [None, np.ones((1, 4, 5), np.float32)])
def test_without_semantic_classes_every_instance_has_class_zero(foreground: np.ndarray | None):
    assert majority_classes(np.ones((3, 4, 5), bool), foreground).tolist() == [0, 0, 0]


def test_the_class_map_is_read_at_the_original_size():
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4] = masks[1, :, 4:] = 1
    classes = torch.zeros(3, 8, 8)
    classes[1, :, :4] = classes[2, :, 4:] = 1
    result = make_postprocessor()(masks, torch.ones(2), classes, (21, 33))
    assert result.pred_classes.tolist() == [0, 1]


@pytest.mark.parametrize("foreground", [None, torch.ones(1, 9, 13), torch.rand(3, 9, 13)])
@pytest.mark.parametrize("scores", [torch.zeros(3), torch.full((3,), 0.9)], ids=["no score", "no mask"])
def test_no_instances_at_all(foreground: torch.Tensor | None, scores: torch.Tensor):
    postprocessor = make_postprocessor(
        score_threshold=0.5, bilateral_diameter=5, dilation=5, use_foreground=foreground is not None
    )
    result = postprocessor(soft_masks(3) * 0.1, scores, foreground, (17, 31))
    assert len(result) == 0
    assert result.image_size == (17, 31)
    assert result.pred_masks.shape == (0, 17, 31) and result.pred_masks.dtype == torch.bool
    assert result.pred_boxes.tensor.shape == (0, 4)
    assert result.scores.shape == result.pred_classes.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_of_masks_and_scores(dtype: torch.dtype):
    masks = torch.zeros(2, 8, 9, dtype=dtype)
    masks[0, :4] = masks[1, 4:] = 0.9
    foreground = torch.ones(1, 8, 9, dtype=dtype)
    result = make_postprocessor(bilateral_diameter=5, use_foreground=True)(
        masks, torch.full((2,), 0.75, dtype=dtype), foreground, (8, 9)
    )
    assert areas(result) == [36, 36]
    assert result.scores.tolist() == [0.75, 0.75]


def test_built_from_config(tiny_cfg):
    options = {
        "SCORE_THRESHOLD": 0.6,
        "MASK_THRESHOLD": 0.4,
        "DILATION": 5,
        "MIN_AREA": 12,
    }
    postprocessor = StrongestInstance(tiny_cfg({f"TEST.{key}": value for key, value in options.items()}))
    assert {key: getattr(postprocessor, key.lower()) for key in options} == options
    assert postprocessor.use_foreground is False
    assert (postprocessor.bilateral_diameter, postprocessor.bilateral_sigma) == (5, 10.0)


def test_use_foreground_without_a_foreground_map_is_refused(tiny_cfg):
    with pytest.raises(ValueError, match="TEST.USE_FOREGROUND.*FOREGROUND_CLASSES is 0"):
        StrongestInstance(tiny_cfg({"TEST.USE_FOREGROUND": True}))
