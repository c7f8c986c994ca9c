"""The typical width of objects: measured on annotations, or given."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from rec_attend_d2.data import object_size as module
from rec_attend_d2.data.object_size import measured_object_size, network_scale, object_size, resolve_object_size


def annotation(top: int, left: int, height: int, width: int, **more) -> dict:
    """A rectangle in a picture of 40 x 60."""
    mask = np.zeros((40, 60), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return {"category_id": 0, "segmentation": mask, **more}


def picture(*annotations: dict, number: int = 0) -> dict:
    return {"file_name": f"{number}.png", "height": 40, "width": 60, "annotations": list(annotations)}


@pytest.fixture
def register(clean_catalog):
    """A function that registers records under a name."""
    return lambda name, records: DatasetCatalog.register(name, lambda: records)


def test_it_is_the_median_over_pictures_of_the_root_of_the_median_area(register):
    small = [annotation(0, 10 * i, 4, 4) for i in range(5)]
    # Widths 4, 10 and 6: of the last picture the objects have 25, 36 and 400 pixels.
    register("many_small", [picture(*small), picture(annotation(0, 0, 5, 20))])
    register("mixed", [picture(annotation(0, 0, 5, 5), annotation(9, 0, 9, 4), annotation(20, 20, 20, 20))])
    assert measured_object_size(["many_small", "mixed"]) == 6.0


def test_crowds_and_pictures_without_objects_do_not_count(register):
    crowd = annotation(0, 0, 40, 60, iscrowd=1)
    records = [picture(annotation(0, 0, 9, 9), crowd), picture(crowd), picture(), {"file_name": "test.png"}]
    register("crowded", records)
    assert measured_object_size(["crowded"]) == 9.0


def test_pictures_that_are_measured_are_spread_evenly(register, monkeypatch):
    monkeypatch.setattr(module, "_PICTURES", 3)
    register("growing", [picture(annotation(0, 0, side, side)) for side in range(1, 31)])
    assert measured_object_size(["growing"]) in (15.0, 16.0)


def test_without_objects_there_is_an_error(register):
    register("nothing", [picture()])
    with pytest.raises(ValueError, match=r"\['nothing'\] has no objects to train on.*set INPUT\.OBJECT_SIZE"):
        measured_object_size(["nothing"])


def test_a_wrong_annotation_is_named(register):
    register("wrong", [picture({"id": 7, "category_id": 0}, number=3)])
    with pytest.raises(ValueError, match=r"3\.png: annotation 7 has a segmentation of type NoneType"):
        measured_object_size(["wrong"])


def test_what_is_given_is_not_measured(cfg):
    cfg.DATASETS.TRAIN = ("no such data set",)
    cfg.INPUT.OBJECT_SIZE, cfg.INPUT.OBJECT_PIXELS = 30.0, 12.0
    resolve_object_size(cfg)
    assert object_size(cfg) == 30.0 and network_scale(cfg) == pytest.approx(0.4)


def test_what_is_measured_is_kept_in_the_config(cfg, register):
    register("nines", [picture(annotation(0, 0, 9, 9))])
    cfg.DATASETS.TRAIN = ("nines",)
    assert network_scale(cfg) == pytest.approx(12 / 9)
    resolve_object_size(cfg)
    assert cfg.INPUT.OBJECT_SIZE == 9.0


@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_wrong_sizes_are_named(cfg, size):
    cfg.INPUT.OBJECT_SIZE = size
    with pytest.raises(ValueError, match=f"INPUT.OBJECT_SIZE is {size}"):
        object_size(cfg)


@pytest.mark.parametrize("pixels", [0.0, 3.9, float("nan")])
def test_too_few_pixels_are_named(cfg, pixels):
    cfg.INPUT.OBJECT_SIZE, cfg.INPUT.OBJECT_PIXELS = 10.0, pixels
    with pytest.raises(ValueError, match=f"INPUT.OBJECT_PIXELS is {pixels}; give at least 4"):
        network_scale(cfg)
