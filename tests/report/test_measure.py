"""Figures of pictures made by hand, equal to the evaluators', and data sets of unusual kinds."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from pycocotools import mask as mask_util

from rec_attend_d2.evaluation import AveragePrecisionEvaluator, CountingEvaluator
from rec_attend_d2.report import measure
from rec_attend_d2.report.measure import ADDED_UP
from rec_attend_d2.whole_files import write_json


def add_crowd(content: dict) -> None:
    """A crowd region around what is invented in the first picture."""
    mask = np.zeros((64, 64), np.uint8, order="F")
    mask[48:62, :14] = 1
    code = mask_util.encode(mask)
    crowd = {"size": code["size"], "counts": code["counts"].decode()}
    item = {"id": 99, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 196, "bbox": [0, 48, 14, 14]}
    content["annotations"].append({**item, "segmentation": crowd})


def test_figures_of_every_picture(register, make_predictor):
    measured = measure(make_predictor(), register())
    shown = [
        (p.true_count, p.predicted_count, p.found, p.missed, p.merged, p.split, p.invented) for p in measured.pictures
    ]
    # The second square touches the first, so that both look like one spot, which is near enough to one of them.
    assert shown == [(0, 1, 0, 0, 0, 0, 1), (1, 2, 1, 0, 0, 0, 1), (2, 2, 1, 1, 1, 0, 1), (3, 3, 2, 1, 1, 0, 1)]
    assert [p.lost_in_merged for p in measured.pictures] == [0, 0, 1, 1]
    assert [p.overlooked for p in measured.pictures] == [0, 0, 0, 0]
    assert sorted(measured.pictures[3].areas)[2] > 390 and sum(measured.pictures[3].found_objects) == 2
    summary = measured.summary
    assert {name: summary[name] for name in ADDED_UP} == {
        **{"true_count": 6, "predicted_count": 8, "found": 4, "missed": 2, "lost_in_merged": 2, "lost_in_pieces": 0},
        **{"overlooked": 0, "merged": 2, "split": 0, "invented": 4},
    }
    assert (summary["pictures"], summary["exact"], summary["relative_count_error"]) == (4, 2, pytest.approx(2 / 6))
    assert measured.pictures[0].notes == "seen" and measured.threshold == 0.2 and measured.class_names == []


def test_numbers_are_those_of_the_evaluators(register, make_predictor):
    name, predictor = register(add_crowd), make_predictor()
    measured = measure(predictor, name)
    counting, precision = CountingEvaluator(name), AveragePrecisionEvaluator(name)
    for record in DatasetCatalog.get(name):
        for evaluator in (counting, precision):
            evaluator.process([record], [{"instances": predictor.find(predictor.read(record["file_name"]))}])
    expected = counting.evaluate()["counting"]
    assert {key: measured.summary[key] for key in expected} == pytest.approx(expected)
    assert expected["DiC"] == 1 / 4  # the crowd takes one that is invented
    expected = precision.evaluate()["segm"]
    assert [measured.summary[key] for key in ("AP", "AP50", "AP75")] == pytest.approx(
        [expected[key] for key in ("AP", "AP50", "AP75")]
    )


def test_everything_can_be_saved(register, make_predictor, tmp_path):
    measured = measure(make_predictor(), register(lambda content: content["annotations"].clear()))
    write_json(tmp_path / "measured.json", measured.as_json())
    content = json.loads((tmp_path / "measured.json").read_text())
    # No picture has an object.
    assert content["summary"]["AP"] is None and content["summary"]["relative_count_error"] is None
    assert content["summary"]["invented"] == content["summary"]["predicted_count"] == 8
    assert [picture["areas"] for picture in content["pictures"]] == [[]] * 4


def two_classes(content: dict) -> None:
    content["categories"].append({"id": 2, "name": "big square"})
    content["annotations"][-1]["category_id"] = 2


def test_classes_are_counted_where_the_model_tells_them_apart(register, make_predictor):
    name = register(two_classes)
    measured = measure(make_predictor(classes=2), name)
    assert measured.class_names == ["square", "big square"]
    assert [p.true_by_class for p in measured.pictures] == [[0, 0], [1, 0], [2, 0], [2, 1]]
    assert measured.pictures[3].predicted_by_class == [3, 0]
    # A model of one class is compared with objects of any.
    alike = measure(make_predictor(), name)
    assert alike.class_names == [] and alike.pictures[3].true_by_class == []
    assert alike.summary["AP50"] == measure(make_predictor(), register()).summary["AP50"]


def test_what_cannot_be_measured_is_refused(make_predictor, register):
    with pytest.raises(ValueError, match="no data set 'none'. Known are .*nuclei_val"):
        measure(make_predictor(), "none")
    name = "squares_without"
    records = [{key: value for key, value in r.items() if key != "annotations"} for r in DatasetCatalog.get(register())]
    DatasetCatalog.register(name, lambda: records)
    try:
        with pytest.raises(ValueError, match="squares_0.png of data set 'squares_without' has no annotations"):
            measure(make_predictor(), name)
        records.clear()
        with pytest.raises(ValueError, match="'squares_without' has no pictures"):
            measure(make_predictor(), name)
    finally:
        DatasetCatalog.remove(name)


def test_a_picture_of_another_size_is_named(make_predictor, register):
    name = register(lambda content: content["images"][2].update(height=65))
    with pytest.raises(ValueError, match="squares_2.png"):
        measure(make_predictor(), name)
