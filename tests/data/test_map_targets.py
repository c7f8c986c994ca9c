"""True maps of an image: foreground with groups, angles of instances only, weights of what is known."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import transforms as T

from rec_attend_d2.data.angle_map import angle_map
from rec_attend_d2.data.instances import build_targets
from rec_attend_d2.data.map_targets import MapTargetGenerator

SIZE = (12, 20)


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def annotation(mask: np.ndarray, category: int, crowd: int = 0) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask))
    return {"segmentation": rle, "category_id": category, "iscrowd": crowd}


OBJECT, OTHER, GROUP = rectangle(1, 1, 8, 6), rectangle(4, 8, 10, 12), rectangle(0, 4, 5, 10)
NO_CHANGE = T.NoOpTransform()


def maps_of(entry: dict, classes: int, bins: int = 8, transforms: T.Transform = NO_CHANGE) -> dict[str, np.ndarray]:
    targets = build_targets(entry["annotations"], SIZE, transforms, SIZE, entry["file_name"])
    maps = MapTargetGenerator(classes, bins)(entry, targets, SIZE, transforms)
    return {name: value.numpy() for name, value in maps.items()}


@pytest.fixture
def entry() -> dict:
    annotations = [annotation(OBJECT, 0), annotation(OTHER, 1), annotation(GROUP, 1, crowd=1)]
    return {"file_name": "a.png", "annotations": annotations}


def test_groups_are_foreground_without_angle(entry):
    maps = maps_of(entry, 1)
    np.testing.assert_array_equal(maps["foreground"][0], OBJECT | OTHER | GROUP)
    np.testing.assert_array_equal(maps["angle_map"], angle_map(np.stack([OBJECT, OTHER]).astype(bool)))
    assert (maps["foreground_weight"] == 1).all()


def test_objects_lie_in_front_of_groups_of_another_class(entry):
    foreground = maps_of(entry, 3)["foreground"]
    np.testing.assert_array_equal(foreground[1], OBJECT)
    np.testing.assert_array_equal(foreground[2], (OTHER | GROUP) & ~(OBJECT.astype(bool)))
    np.testing.assert_array_equal(foreground.sum(0), np.ones(SIZE))


def test_void_pixels_have_no_weight_and_move_with_the_image(entry):
    void = rectangle(0, 0, 12, 3)
    entry["void"] = mask_util.encode(np.asfortranarray(void))
    np.testing.assert_array_equal(maps_of(entry, 1)["foreground_weight"], 1 - void)
    mirrored = maps_of(entry, 1, transforms=T.HFlipTransform(SIZE[1]))
    np.testing.assert_array_equal(mirrored["foreground_weight"], 1 - void[:, ::-1])
    np.testing.assert_array_equal(mirrored["foreground"][0], (OBJECT | OTHER | GROUP)[:, ::-1])


def test_coarse_images_count_less_and_have_no_angles(entry):
    entry["coarse"] = True
    maps = maps_of(entry, 3)
    assert (maps["angle_map"] == 0).all()
    np.testing.assert_allclose(maps["foreground_weight"], 0.1)
    assert maps["foreground"][1:].any()


def test_only_what_is_asked_for_is_made(entry):
    assert set(maps_of(entry, 0)) == {"angle_map"}
    assert set(maps_of(entry, 1, bins=0)) == {"foreground", "foreground_weight"}


def test_an_image_without_objects():
    maps = maps_of({"file_name": "a.png", "annotations": []}, 3)
    assert (maps["foreground"][0] == 1).all() and (maps["angle_map"] == 0).all()


def test_a_class_without_channel_is_named_with_its_file(entry):
    entry["annotations"].append(annotation(OTHER, 5))
    with pytest.raises(ValueError, match="a.png: Class 5 has no channel"):
        maps_of(entry, 3)
    entry["annotations"][-1] = {**annotation(OTHER, 5, crowd=1), "id": 7, "segmentation": None}
    with pytest.raises(ValueError, match="a.png: annotation 7 has a segmentation of type NoneType"):
        maps_of(entry, 3)
