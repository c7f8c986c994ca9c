"""What the mapper makes of a dataset dict."""

import copy
import logging

import cv2
import numpy as np
import pytest
import torch

from rec_attend_d2.data.angle_map import angle_map
from rec_attend_d2.data.dataset_mapper import RecAttendDatasetMapper

SIZE = (64, 96)  # height, width; twice the network's input


@pytest.fixture
def blocks() -> list[np.ndarray]:
    """Masks that look the same at half size."""
    masks = [np.zeros(SIZE, dtype=bool) for _ in range(3)]
    masks[0][10:30, 10:20] = True
    masks[1][30:60, 40:80] = True
    masks[2][4:6, 60:62] = True
    return masks


@pytest.fixture
def entry(tmp_path, blocks, rle) -> dict:
    """A dataset dict whose picture is white on the objects."""
    picture = np.zeros((*SIZE, 3), dtype=np.uint8)
    for number, mask in enumerate(blocks):
        picture[mask] = 255 - number
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    annotations = [
        {"id": i, "category_id": i, "iscrowd": 0, "segmentation": rle(mask)} for i, mask in enumerate(blocks)
    ]
    return {
        "file_name": str(tmp_path / "picture.png"),
        "image_id": 3,
        "height": 64,
        "width": 96,
        "annotations": annotations,
    }


@pytest.mark.parametrize(("size", "notes"), [(8.0, ()), (7.0, ("objects of 7 pixels are shrunk to 3.5",)), (0.0, ())])
def test_images_that_are_shrunk_too_far_have_a_note(cfg, size, notes):
    cfg.INPUT.OBJECT_SIZE = size
    assert RecAttendDatasetMapper(cfg, is_train=False).map_image(np.zeros((64, 96, 3), np.uint8))[0]["notes"] == notes


def test_test_image(cfg, entry, blocks):
    before = copy.deepcopy(entry)
    output = RecAttendDatasetMapper(cfg, is_train=False)(entry)
    assert entry == before
    assert set(output) == {"file_name", "image_id", "height", "width", "image", "notes", "instances"}
    assert output["notes"] == ()
    assert (output["image_id"], output["height"], output["width"]) == (3, 64, 96)
    assert output["image"].dtype == torch.uint8 and output["image"].shape == (3, 32, 48)
    instances = output["instances"]
    assert instances.gt_classes.tolist() == [1, 0, 2] and instances.gt_classes.dtype == torch.int64
    expected = np.stack([blocks[i][::2, ::2] for i in (1, 0, 2)])
    np.testing.assert_array_equal(instances.gt_masks.tensor.numpy(), expected)
    assert instances.gt_boxes.tensor.tolist() == [[20, 15, 40, 30], [5, 5, 10, 15], [30, 2, 31, 3]]
    np.testing.assert_array_equal(output["image"][1].numpy() > 0, expected.any(axis=0))


def test_image_channels_are_bgr(cfg, entry):
    cv2.imwrite(entry["file_name"], np.full((*SIZE, 3), (1, 2, 3), dtype=np.uint8))
    image = RecAttendDatasetMapper(cfg, is_train=False)(entry)["image"]
    assert [int(image[c].unique()) for c in range(3)] == [1, 2, 3]


def test_training_moves_masks_with_the_image(cfg, entry):
    cfg.INPUT.AUGMENTATIONS = ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomShift"]
    mapper = RecAttendDatasetMapper(cfg, is_train=True)
    np.random.seed(3)
    pictures = set()
    for _ in range(30):
        output = mapper(entry)
        instances = output["instances"]
        for mask, label in zip(instances.gt_masks.tensor, instances.gt_classes, strict=True):
            assert torch.equal(mask, output["image"][0] == 255 - label)
        assert torch.equal(instances.gt_masks.tensor.any(0), output["image"][0] > 0)
        pictures.add(output["image"].numpy().tobytes())
    assert len(pictures) > 20


def test_training_with_transposition_of_other_aspect_ratio(cfg, entry):
    cfg.INPUT.AUGMENTATIONS = ["RandomTranspose"]
    mapper = RecAttendDatasetMapper(cfg, is_train=True)
    np.random.seed(0)
    boxes = set()
    for _ in range(20):
        output = mapper(entry)
        assert output["image"].shape == (3, 32, 48)
        white, mask = output["image"][0].float() / 254, output["instances"].gt_masks.tensor[0]
        # Soft edges of the resized picture cross a half where the mask ends.
        assert ((white > 0.51) & mask).sum() >= 0.95 * mask.sum()
        boxes.add(tuple(output["instances"].gt_boxes.tensor[0].tolist()))
    # Rows 30-60 of 64 and columns 40-80 of 96, or the other way round.
    assert boxes == {(20, 15, 40, 30), (22, 13, 45, 27)}


def test_image_without_objects(cfg, entry):
    entry["annotations"] = []
    output = RecAttendDatasetMapper(cfg, is_train=True)(entry)
    assert len(output["instances"]) == 0 and output["instances"].gt_masks.tensor.shape == (0, 32, 48)


def test_without_annotations_there_are_no_instances(cfg, entry):
    del entry["annotations"]
    assert "instances" not in RecAttendDatasetMapper(cfg, is_train=False)(entry)


def test_given_maps(cfg, entry, blocks):
    node = cfg.MODEL.REC_ATTEND
    node.PREPROCESSOR.NAME, node.PREPROCESSOR.ANGLE_BINS, node.PREPROCESSOR.FOREGROUND_CLASSES = "GivenMaps", 8, 4
    node.TIME_STEPS = 1
    output = RecAttendDatasetMapper(cfg, is_train=False)(entry)
    assert len(output["instances"]) == 1
    # The maps show the instances beyond TIME_STEPS too.
    small = np.stack([mask[::2, ::2] for mask in blocks])
    assert output["angle_map"].dtype == output["foreground"].dtype == torch.float32
    np.testing.assert_array_equal(output["angle_map"].numpy(), angle_map(small))
    np.testing.assert_array_equal(output["foreground"][1:].numpy(), small)
    np.testing.assert_array_equal(output["foreground"][0].numpy(), ~small.any(axis=0))


def test_angle_map_is_made_after_augmentation(cfg, entry):
    node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
    node.NAME, node.ANGLE_BINS, node.FOREGROUND_CLASSES = "GivenMaps", 8, 1
    np.random.seed(1)
    mapper = RecAttendDatasetMapper(cfg, is_train=True)
    for _ in range(10):
        output = mapper(entry)
        masks = output["instances"].gt_masks.tensor.numpy()
        np.testing.assert_array_equal(output["angle_map"].numpy(), angle_map(masks))
        np.testing.assert_array_equal(output["foreground"].numpy(), masks.any(axis=0, keepdims=True))


def test_given_maps_need_annotations(cfg, entry):
    cfg.MODEL.REC_ATTEND.PREPROCESSOR.NAME = "GivenMaps"
    cfg.MODEL.REC_ATTEND.PREPROCESSOR.ANGLE_BINS = 8
    del entry["annotations"]
    with pytest.raises(ValueError, match=r"picture\.png has no annotations.*MODEL\.REC_ATTEND\.PREPROCESSOR\.NAME"):
        RecAttendDatasetMapper(cfg, is_train=False)(entry)


def test_class_without_foreground_channel(cfg, entry):
    cfg.MODEL.REC_ATTEND.PREPROCESSOR.NAME = "GivenMaps"
    cfg.MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES = 3
    with pytest.raises(ValueError, match=r"picture\.png: Class 2 .*FOREGROUND_CLASSES"):
        RecAttendDatasetMapper(cfg, is_train=False)(entry)


def test_too_many_objects_are_counted_and_logged(cfg, entry, caplog):
    cfg.MODEL.REC_ATTEND.TIME_STEPS = 2
    mapper = RecAttendDatasetMapper(cfg, is_train=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(9):
            assert mapper(entry)["instances"].gt_classes.tolist() == [1, 0]
    assert mapper.cut_instances == 9
    messages = [record.getMessage() for record in caplog.records if "TIME_STEPS" in record.getMessage()]
    assert len(messages) == 4  # at 1, 2, 4 and 8
    assert "picture.png has 3 objects" in messages[0] and "8 left out so far" in messages[-1]


def test_crowds_are_counted_and_logged(cfg, entry, caplog):
    entry["annotations"][1]["iscrowd"] = 1
    mapper = RecAttendDatasetMapper(cfg, is_train=False)
    with caplog.at_level(logging.WARNING):
        assert mapper(entry)["instances"].gt_classes.tolist() == [0, 2]
    assert mapper.crowd_regions == 1
    assert any("picture.png has 1 crowd annotation" in record.getMessage() for record in caplog.records)


def test_other_image_size_than_the_annotations(cfg, entry):
    entry["height"], entry["width"] = 96, 64
    with pytest.raises(ValueError, match=r"picture\.png is 64 high and 96 wide.*96 high and 64 wide.*Correct"):
        RecAttendDatasetMapper(cfg, is_train=True)(entry)


def test_missing_image(cfg, entry):
    entry["file_name"] += "x"
    with pytest.raises(FileNotFoundError, match=r"picture\.pngx"):
        RecAttendDatasetMapper(cfg, is_train=True)(entry)


def test_contrast_stretch(cfg, entry):
    dim = np.tile(np.repeat(np.arange(47, 71, dtype=np.uint8), 4), (64, 1))
    cv2.imwrite(entry["file_name"], dim)
    assert RecAttendDatasetMapper(cfg, is_train=False)(entry)["image"].max() == 70
    cfg.INPUT.CONTRAST_PERCENTILES = [1, 99]
    image = RecAttendDatasetMapper(cfg, is_train=False)(entry)["image"]
    assert (image.min(), image.max()) == (0, 255)
    cfg.INPUT.CONTRAST_PERCENTILES = [99, 1]
    with pytest.raises(ValueError, match=r"INPUT\.CONTRAST_PERCENTILES"):
        RecAttendDatasetMapper(cfg, is_train=False)


@pytest.mark.parametrize("size", [(1, 1), (7, 201), (33, 5)])
def test_odd_sizes(cfg, entry, rle, size):
    cv2.imwrite(entry["file_name"], np.full(size, 9, dtype=np.uint8))
    mask = np.zeros(size, dtype=bool)
    mask[size[0] // 2, size[1] // 2] = True
    entry.update(height=size[0], width=size[1], annotations=[{"category_id": 0, "segmentation": rle(mask)}])
    output = RecAttendDatasetMapper(cfg, is_train=False)(entry)
    assert output["image"].shape == (3, 32, 48) and (output["image"] == 9).all()
    x0, y0, x1, y1 = output["instances"].gt_boxes.tensor[0].tolist()
    # The middle of the pixel lies in the mask.
    assert x0 <= (size[1] // 2 + 0.5) * 48 / size[1] <= x1
    assert y0 <= (size[0] // 2 + 0.5) * 32 / size[0] <= y1
