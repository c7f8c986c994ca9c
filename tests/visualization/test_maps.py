"""Pictures of foreground, classes and angles."""

import numpy as np
import torch

from rec_attend_d2.modeling.steps import ExtraMaps
from rec_attend_d2.visualization.colors import instance_color
from rec_attend_d2.visualization.maps import angle_picture, class_picture, draw_maps


def test_foreground_is_gray():
    foreground = np.array([[[0.0, 0.5], [1.0, 0.2]]])
    assert class_picture(foreground)[..., 0].tolist() == [[0, 128], [255, 51]]


def test_every_class_has_its_colour_and_the_background_none():
    classes = np.eye(3)[np.array([[0, 1], [2, 1]])].transpose(2, 0, 1)
    picture = class_picture(classes)
    expected = [(0, 0, 0), instance_color(0), instance_color(1)]
    assert [tuple(map(int, picture[y, x])) for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))] == [*expected, expected[1]]


def test_angles_are_hues_where_there_is_foreground():
    angle = np.eye(8)[np.array([[0, 4], [0, 2]])].transpose(2, 0, 1)
    picture = angle_picture(angle, np.array([[[1.0, 1.0], [0.0, 0.5]]]))
    red, cyan, nothing, dim = (picture[y, x].astype(int) for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)))
    assert red[0] == 255 and red[1] == red[2] < 60
    assert cyan[0] < 60 and cyan[1] == cyan[2] == 255
    assert (nothing == 0).all() and dim.max() == 128
    classes = np.stack([1 - np.array([[1.0, 1.0], [0.0, 0.5]]), np.array([[1.0, 1.0], [0.0, 0.5]])])
    assert np.array_equal(angle_picture(angle, classes), picture)
    assert (angle_picture(angle, None).max(2) == 255).all()


def test_the_maps_stand_beside_the_image():
    image = np.full((40, 60, 3), 90, dtype=np.uint8)
    maps = ExtraMaps(angle=torch.rand(2, 8, 40, 60), foreground=torch.rand(2, 1, 40, 60))
    both = draw_maps(image, maps, 1)
    one = draw_maps(image, ExtraMaps(foreground=maps.foreground), 1)
    assert both.dtype == np.uint8 and both.shape[0] == one.shape[0]
    assert both.shape[1] * 2 == one.shape[1] * 3
    assert (both[:160, :240] == 90).all()
    assert np.array_equal(both[:, : one.shape[1]], one)
