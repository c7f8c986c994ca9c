"""Masks and points go where the image goes."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T

from rec_attend_d2.data import RecAttendDatasetMapper
from rec_attend_d2.data.augmentation import (
    AUGMENTATIONS,
    IntensityTransform,
    RandomIntensity,
    RandomShift,
    RandomTranspose,
    RandomWarp,
    ResizeToSize,
    ResizeToSizeTransform,
    TransposeTransform,
    build_augmentations,
    build_resize,
    resize_array,
    shift_transform,
)
from rec_attend_d2.data.warps import WarpTransform

SMALL_DATA_SET = ["RandomWarp", "RandomIntensity"]


@pytest.fixture
def warp_cfg(cfg):
    """The config with the two augmentations for small data sets."""
    cfg.INPUT.IMAGE_SIZE = [64, 96]
    cfg.INPUT.AUGMENTATIONS = SMALL_DATA_SET
    return cfg


@pytest.fixture
def mask() -> np.ndarray:
    """A mask without any symmetry."""
    mask = np.zeros((18, 26), dtype=np.uint8)
    mask[2:9, 3:8] = 1
    mask[9:15, 3:5] = 1
    mask[4, 8:20] = 1
    return mask


def _picture(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None] * 255, 3, axis=2)


TRANSFORMS = {
    "horizontal": (T.HFlipTransform(26), lambda mask: mask[:, ::-1]),
    "vertical": (T.VFlipTransform(18), lambda mask: mask[::-1]),
    "transpose": (TransposeTransform(), lambda mask: mask.T),
    "shift": (shift_transform(3, -2, (18, 26)), lambda mask: np.pad(mask, ((3, 0), (0, 2)))[:18, 2:]),
    "shift_up": (shift_transform(-3, 5, (18, 26)), lambda mask: np.pad(mask, ((0, 3), (5, 0)))[3:, :26]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_image_mask_and_points_move_together(mask, name):
    transform, expected = TRANSFORMS[name]
    moved = transform.apply_segmentation(mask)
    np.testing.assert_array_equal(moved, expected(mask))
    np.testing.assert_array_equal(transform.apply_image(_picture(mask)), _picture(moved))
    inside = np.argwhere(mask)[:, ::-1] + 0.5
    points = np.floor(transform.apply_coords(inside.copy())).astype(int)
    points = points[((points >= 0) & (points < moved.shape[::-1])).all(axis=1)]
    assert len(points) == moved.sum()
    assert moved[points[:, 1], points[:, 0]].all()


@pytest.mark.parametrize(("name", "change"), [("RandomHorizontalFlip", 1), ("RandomVerticalFlip", 0)])
def test_flips_happen_half_the_time(cfg, mask, name, change):
    np.random.seed(0)
    flip = AUGMENTATIONS[name](cfg)
    flipped = 0
    for _ in range(200):
        moved = flip.get_transform(mask).apply_image(mask)
        if not np.array_equal(moved, mask):
            np.testing.assert_array_equal(moved, np.flip(mask, change))
            flipped += 1
    assert 70 < flipped < 130


def test_transpose_happens_half_the_time(mask):
    np.random.seed(0)
    shapes = [RandomTranspose().get_transform(mask).apply_image(mask).shape for _ in range(200)]
    assert set(shapes) == {(18, 26), (26, 18)}
    assert 70 < shapes.count((26, 18)) < 130


def test_shift_covers_its_range(mask):
    np.random.seed(0)
    shift = RandomShift(3)
    drawn = {tuple(shift.get_transform(mask).apply_coords(np.zeros((1, 2)))[0]) for _ in range(1000)}
    assert drawn == {(right, down) for right in range(-3, 4) for down in range(-3, 4)}


def test_same_seed_same_augmentation(cfg, mask):
    results = []
    for _ in range(2):
        np.random.seed(5)
        aug_input = T.AugInput(_picture(mask))
        T.AugmentationList(build_augmentations(cfg))(aug_input)
        results.append(aug_input.image)
    np.testing.assert_array_equal(*results)


def test_order_is_flips_resize_shift(cfg):
    cfg.INPUT.AUGMENTATIONS = ["RandomShift", "RandomTranspose", "RandomVerticalFlip"]
    types = [type(augmentation) for augmentation in build_augmentations(cfg)]
    assert types == [RandomTranspose, T.RandomFlip, ResizeToSize, RandomShift]


def test_transposed_images_have_the_network_size(cfg, mask):
    np.random.seed(1)
    augmentations = T.AugmentationList(build_augmentations(cfg))
    for _ in range(20):
        aug_input = T.AugInput(_picture(mask))
        augmentations(aug_input)
        assert aug_input.image.shape == (32, 48, 3)


def test_resized_image_and_mask_agree(mask):
    big = np.kron(mask, np.ones((4, 4), dtype=np.uint8))
    transform = ResizeToSizeTransform(big.shape, mask.shape)
    np.testing.assert_array_equal(transform.apply_segmentation(big), mask)
    np.testing.assert_array_equal(transform.apply_image(_picture(big)), _picture(mask))
    np.testing.assert_allclose(transform.apply_coords(np.array([[10.0, 6.0]])), [[2.5, 1.5]])


def test_downsized_mask_owns_pixels_it_half_covers():
    mask = np.zeros((12, 12), dtype=np.uint8)
    mask[0:6, 0:3] = 1  # half of one 6 x 6 pixel
    mask[6:12, 6:8] = 1  # a third of another
    np.testing.assert_array_equal(ResizeToSizeTransform((12, 12), (2, 2)).apply_segmentation(mask), [[1, 0], [0, 0]])


@pytest.mark.parametrize(
    ("old", "new"), [((7, 13), (32, 48)), ((100, 9), (32, 48)), ((31, 47), (30, 48)), ((1, 1), (3, 5))]
)
def test_odd_sizes_resize_and_keep_constants(old, new):
    resized = resize_array(np.full((*old, 3), 77, dtype=np.uint8), new)
    assert resized.shape == (*new, 3) and (resized == 77).all()


def test_shrinking_averages():
    checkerboard = np.indices((40, 40)).sum(axis=0).astype(np.float32) % 2
    np.testing.assert_allclose(resize_array(checkerboard, (10, 10)), 0.5)


def test_unknown_augmentation_lists_the_known(cfg):
    cfg.INPUT.AUGMENTATIONS = ["RandomFlop"]
    with pytest.raises(ValueError, match=r"INPUT\.AUGMENTATIONS is 'RandomFlop'.*RandomHorizontalFlip.*RandomShift"):
        build_augmentations(cfg)


@pytest.mark.parametrize("shift", [-1, 32])
def test_impossible_shift(cfg, shift):
    cfg.INPUT.MAX_SHIFT = shift
    with pytest.raises(ValueError, match=r"INPUT\.MAX_SHIFT"):
        build_augmentations(cfg)


@pytest.mark.parametrize("size", [[32], [0, 32]])
def test_impossible_size(cfg, size):
    cfg.INPUT.IMAGE_SIZE = size
    with pytest.raises(ValueError, match=r"INPUT\.IMAGE_SIZE"):
        build_resize(cfg)


# ---------------------------------------------------------------- RandomWarp and RandomIntensity


def _colours(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_warp_and_intensity_run_at_network_size(warp_cfg):
    types = [type(augmentation) for augmentation in build_augmentations(warp_cfg)]
    assert types == [ResizeToSize, RandomWarp, RandomIntensity]


@pytest.mark.parametrize("make", [lambda prob: RandomWarp(45, prob=prob), lambda prob: RandomIntensity(prob=prob)])
def test_warp_and_intensity_happen_as_often_as_asked(mask, make):
    np.random.seed(0)
    for prob, expected in ((0.0, (0, 0)), (0.3, (40, 80)), (1.0, (200, 200))):
        change = make(prob)
        changes = sum(not isinstance(change.get_transform(_picture(mask)), T.NoOpTransform) for _ in range(200))
        assert expected[0] <= changes <= expected[1]


@pytest.mark.parametrize("shape", [(18, 26, 3), (1, 1, 3), (64, 9, 3), (12, 12, 1)])
def test_parameters_of_zero_change_nothing(shape):
    image = _colours(shape)
    warp = RandomWarp(0, prob=1, log_scale=0, shift=0, elastic=0)
    for augmentation in (warp, RandomIntensity(prob=1, log_gamma=0, contrast=0, brightness=0, noise=0)):
        transform = augmentation.get_transform(image)
        assert not isinstance(transform, T.NoOpTransform)
        np.testing.assert_array_equal(transform.apply_image(image), image)


@pytest.mark.parametrize("change", [RandomWarp(45, prob=1), RandomIntensity(prob=1)], ids=["warp", "intensity"])
def test_same_seed_same_warp_and_intensity(change):
    image = _colours((40, 60, 3))
    results = []
    for seed in (5, 5, 6):
        np.random.seed(seed)
        transform = change.get_transform(image)
        results.append(transform.apply_image(image))
        np.testing.assert_array_equal(transform.apply_image(image), results[-1])
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_warp_covers_its_ranges():
    np.random.seed(0)
    warp, picture = RandomWarp(30, prob=1, log_scale=0.4, shift=0.1, elastic=0), np.zeros((64, 96, 3), dtype=np.uint8)
    drawn = []
    for _ in range(300):
        transform = warp.get_transform(picture)
        # Where the centre of the image and the point right of it go.
        center, right = transform.apply_coords(np.array([[48.0, 32.0], [49.0, 32.0]]))
        axis = right - center
        drawn.append(
            [np.degrees(np.arctan2(axis[1], axis[0])), np.log(np.hypot(*axis)), center[0] - 48, center[1] - 32]
        )
    limits = np.array([30.0, 0.4, 9.6, 6.4])
    np.testing.assert_allclose(np.max(drawn, axis=0), limits, rtol=0.05)
    np.testing.assert_allclose(np.min(drawn, axis=0), -limits, rtol=0.05)
    assert (np.max(np.abs(drawn), axis=0) <= limits).all()


def test_elastic_displacement_is_in_pixels_and_new_each_time():
    np.random.seed(0)
    warp, picture = RandomWarp(45, prob=1, elastic=2), np.zeros((64, 96, 3), dtype=np.uint8)
    drawn = []
    for _ in range(100):
        transform = warp.get_transform(picture)
        assert isinstance(transform, WarpTransform)
        drawn.append(transform.displacement)
    assert np.std(drawn) == pytest.approx(2.0, rel=0.1)


def test_intensity_stays_in_range_and_leaves_masks_and_points(mask):
    np.random.seed(0)
    intensity = RandomIntensity(prob=1, log_gamma=1, contrast=1, brightness=0.5, noise=0.5)
    image = _colours((18, 26, 3))
    points = np.array([[3.0, 4.5]])
    for _ in range(20):
        transform = intensity.get_transform(image)
        changed = transform.apply_image(image)
        assert changed.dtype == np.uint8 and changed.shape == image.shape
        np.testing.assert_array_equal(transform.apply_segmentation(mask), mask)
        np.testing.assert_array_equal(transform.apply_coords(points), points)


def test_values_beyond_the_range_are_clipped():
    transform = IntensityTransform(np.linspace(-300, 600, 256, dtype=np.float32))
    assert transform.apply_image(np.array([[0, 85, 128, 255]], dtype=np.uint8)).tolist() == [[0, 0, 152, 255]]


def test_intensity_keeps_grey_grey():
    np.random.seed(0)
    grey = np.repeat(_colours((18, 26, 1)), 3, axis=2)
    for _ in range(10):
        changed = RandomIntensity(prob=1).get_transform(grey).apply_image(grey)
        assert (changed == changed[..., :1]).all()


@pytest.mark.parametrize(
    ("key", "value", "measure", "low", "high"),
    [
        # The middle value stays the mean under a change of contrast; others move away from it by the factor.
        ("contrast", 0.5, lambda image: (image[0, 2] - image[0, 0]) / 100, 0.5, 1.5),
        ("brightness", 0.1, lambda image: (image[0, 1] - 150) / 255, -0.1, 0.1),
        ("log_gamma", 0.5, lambda image: np.log(np.log(image[0, 1] / 255) / np.log(150 / 255)), -0.5, 0.5),
    ],
)
def test_intensity_covers_its_ranges(key, value, measure, low, high):
    np.random.seed(0)
    others = dict.fromkeys(("log_gamma", "contrast", "brightness", "noise"), 0.0)
    intensity, image = RandomIntensity(prob=1, **{**others, key: value}), np.array([[100, 150, 200]], dtype=np.uint8)
    changed = [intensity.get_transform(image).apply_image(image).astype(float) for _ in range(200)]
    drawn = [measure(one) for one in changed]
    np.testing.assert_allclose([min(drawn), max(drawn)], [low, high], atol=0.03 * (high - low))
    if key == "contrast":
        assert {one[0, 1] for one in changed} == {150.0}


def test_noise_has_up_to_its_deviation():
    np.random.seed(0)
    intensity = RandomIntensity(prob=1, log_gamma=0, contrast=0, brightness=0, noise=0.1)
    image = np.full((50, 50, 3), 128, dtype=np.uint8)
    changed = [intensity.get_transform(image).apply_image(image)[..., 0].astype(float) for _ in range(100)]
    deviations = [one.std() / 255 for one in changed]
    assert max(deviations) == pytest.approx(0.1, abs=0.005) and min(deviations) < 0.005
    assert np.mean(changed) == pytest.approx(128, abs=0.5)
    neighbours = np.corrcoef(changed[0][:, 1:].ravel(), changed[0][:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.1


@pytest.mark.parametrize("rotation", [-1.0, 181.0, float("nan")])
def test_impossible_rotation(warp_cfg, rotation):
    warp_cfg.INPUT.WARP.ROTATION = rotation
    with pytest.raises(ValueError, match=rf"INPUT\.WARP\.ROTATION is {rotation}.*from 0 to 180"):
        build_augmentations(warp_cfg)


@pytest.mark.parametrize("size", [(64, 96), (128, 80), (31, 47)])
def test_mapper_with_all_augmentations(warp_cfg, rle, tmp_path, size):
    """Objects of different brightness: in the image that comes out each is where its mask is."""
    warp_cfg.INPUT.AUGMENTATIONS = ["RandomHorizontalFlip", "RandomTranspose", "RandomShift", *SMALL_DATA_SET]
    y, x = (np.mgrid[: size[0], : size[1]] + 0.5) / np.reshape(size, (2, 1, 1))
    picture, annotations = np.full((*size, 3), 20, dtype=np.uint8), []
    for label, center in enumerate([(0.1, 0.1), (0.5, 0.5), (0.3, 0.75), (0.8, 0.2)]):
        mask = np.hypot(y - center[0], x - center[1]) < 0.14
        picture[mask] = 100 + 40 * label
        annotations.append({"category_id": label, "segmentation": rle(mask)})
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    entry = {"file_name": str(tmp_path / "picture.png"), "annotations": annotations}
    mapper = RecAttendDatasetMapper(warp_cfg, is_train=True)
    np.random.seed(1)
    counts = []
    for _ in range(20):
        output = mapper(entry)
        assert output["image"].shape == (3, 64, 96) and output["image"].dtype == torch.uint8
        image, instances = output["image"][0].numpy(), output["instances"]
        masks = instances.gt_masks.tensor.numpy()
        assert masks.any(axis=(1, 2)).all() and (masks.sum(axis=0) <= 1).all()
        eroded = [cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0 for mask in masks]
        levels = {
            label: image[inside].mean()
            for label, inside in zip(instances.gt_classes.tolist(), eroded, strict=True)
            if inside.any()
        }
        ordered = [levels[label] for label in sorted(levels)]
        assert ordered == sorted(ordered)
        # Halfway between background and the object: the rim of each mask.
        background = np.median(image[~cv2.dilate(masks.any(axis=0).astype(np.uint8), np.ones((5, 5))).astype(bool)])
        for label, mask in zip(instances.gt_classes.tolist(), masks, strict=True):
            if label in levels and mask.sum() > 60:
                near = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7))).astype(bool) & (~masks.any(axis=0) | mask)
                seen = (image > (background + levels[label]) / 2) & near
                assert (seen & mask).sum() / (seen | mask).sum() > 0.85
        torch.testing.assert_close(instances.gt_boxes.tensor, instances.gt_masks.get_bounding_boxes().tensor)
        counts.append(len(instances))
    assert max(counts) == 4 and min(counts) < 4  # objects near the border leave at times
