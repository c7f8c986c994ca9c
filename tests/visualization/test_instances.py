"""Pictures of results: colours where the masks are, boxes where there are none."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import Boxes, Instances

from rec_attend_d2.visualization import draw_instances, side_by_side, true_instances
from rec_attend_d2.visualization.colors import instance_color

HEIGHT, WIDTH, FACTOR = 50, 80, 7  # 7 * 50 is the first multiple of at least 320


@pytest.fixture
def image() -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 30, dtype=np.uint8)


def test_every_mask_has_its_colour(image):
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 20:30, 10:20] = True
    masks[1, 20:30, 40:60] = True
    picture = draw_instances(image, Instances((HEIGHT, WIDTH), pred_masks=masks))
    assert picture.shape == (HEIGHT * FACTOR, WIDTH * FACTOR, 3)
    for number, column in enumerate([15, 50]):
        expected = np.round(0.55 * 30 + 0.45 * np.array(instance_color(number)))
        assert (picture[25 * FACTOR, column * FACTOR] == expected).all()
        assert (picture[20 * FACTOR, column * FACTOR] == instance_color(number)).all()  # outline
    outside = picture[20 * FACTOR :].copy()
    outside[: 10 * FACTOR, 10 * FACTOR : 20 * FACTOR] = 30
    outside[: 10 * FACTOR, 40 * FACTOR : 60 * FACTOR] = 30
    assert (outside == 30).all()


def test_boxes_are_drawn_where_there_are_no_masks(image):
    boxes = Boxes(torch.tensor([[10.0, 20.0, 30.0, 40.0]]))
    picture = draw_instances(image, Instances((HEIGHT, WIDTH), pred_boxes=boxes))
    color = np.array(instance_color(0))
    assert (picture[20 * FACTOR, 10 * FACTOR : 30 * FACTOR] == color).all()
    assert (picture[20 * FACTOR : 40 * FACTOR, 30 * FACTOR] == color).all()
    assert (picture[30 * FACTOR, 20 * FACTOR] == 30).all()


def test_count_differs_in_the_corner_only(image):
    none = draw_instances(image, Instances((HEIGHT, WIDTH), pred_masks=torch.zeros(0, HEIGHT, WIDTH)))
    empty = draw_instances(image, Instances((HEIGHT, WIDTH), pred_masks=torch.zeros(1, HEIGHT, WIDTH)))
    assert (none[60:] == 30).all() and (none[:, 200:] == 30).all()
    assert not np.array_equal(none, empty)


def test_instances_of_another_size_are_refused(image):
    with pytest.raises(ValueError, match=r"\(40, 80\), not \(50, 80\)"):
        draw_instances(image, Instances((40, 80), pred_masks=torch.zeros(0, 40, 80)))


def test_instances_without_masks_and_boxes_are_refused(image):
    with pytest.raises(ValueError, match="neither"):
        draw_instances(image, Instances((HEIGHT, WIDTH), scores=torch.ones(1)))


def test_true_instances_leave_crowds_out():
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[3:6, 4:9] = 1
    rle = mask_util.encode(np.asfortranarray(mask))
    annotations = [
        {"segmentation": rle, "category_id": 0, "iscrowd": 0},
        {"segmentation": rle, "category_id": 0, "iscrowd": 1},
    ]
    found = true_instances({"file_name": "a.png", "annotations": annotations}, (HEIGHT, WIDTH))
    assert len(found) == 1
    np.testing.assert_array_equal(found.pred_masks[0].numpy(), mask.astype(bool))
    assert true_instances({"file_name": "a.png", "annotations": []}, (5, 6)).pred_masks.shape == (0, 5, 6)


def test_side_by_side_keeps_the_pictures(image):
    other = np.full_like(image, 90)
    picture = side_by_side({"found": image, "truth": other})
    assert picture.shape == (36 + HEIGHT + 4, 2 * (WIDTH + 4), 3)
    np.testing.assert_array_equal(picture[36:-4, :WIDTH], image)
    np.testing.assert_array_equal(picture[36:-4, WIDTH + 4 : -4], other)
