"""KITTI's metrics on a miniature of its cars."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances

from miniature.kitti import write_kitti
from rec_attend_d2.data.datasets.builtin import register_builtin_datasets
from rec_attend_d2.data.datasets.kitti import register_kitti
from rec_attend_d2.data.segmentation import annotation_mask
from rec_attend_d2.evaluation.counting_evaluator import CoverageEvaluator


@pytest.fixture
def records(tmp_path):
    write_kitti(tmp_path, {"train": 0, "valid_man": 3, "test_man": 0}, size=(40, 120))
    register_kitti(tmp_path)
    yield DatasetCatalog.get("kitti_cars_val")
    register_builtin_datasets()


def true_masks(record: dict) -> np.ndarray:
    size = (record["height"], record["width"])
    return np.array([annotation_mask(a, size, "truth") for a in record["annotations"]]).reshape(-1, *size)


def evaluate(masks: dict[str, np.ndarray]) -> dict[str, float]:
    evaluator = CoverageEvaluator("kitti_cars_val")
    evaluator.reset()
    for image_id, image_masks in masks.items():
        instances = Instances(image_masks.shape[1:], pred_masks=torch.from_numpy(image_masks))
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    results = evaluator.evaluate()
    assert list(results) == ["counting", "coverage"]
    assert results["coverage"].items() <= results["counting"].items()
    return results["coverage"]


def test_truth_as_prediction_is_perfect(records):
    assert evaluate({record["image_id"]: true_masks(record) for record in records}) == {
        "MWCov": 1,
        "MWCov_std": 0,
        "MUCov": 1,
        "MUCov_std": 0,
        "AvgFP": 0,
        "AvgFN": 0,
        "num_images": 3,
    }


def test_by_hand(records):
    truth = {record["image_id"]: true_masks(record) for record in records}
    areas = [masks.sum(axis=(1, 2)) for masks in truth.values()]
    assert all(len(area) >= 2 for area in areas)
    # The first car of every image is missed, and one pixel of the sky is taken for a car.
    predicted = {image_id: masks.copy() for image_id, masks in truth.items()}
    for image_id, masks in predicted.items():
        masks[0] = False
        assert not truth[image_id][:, 0, 0].any()
        masks[0, 0, 0] = True
    results = evaluate(predicted)
    assert results["MUCov"] == pytest.approx(np.mean([(len(area) - 1) / len(area) for area in areas]))
    assert results["MWCov"] == pytest.approx(np.mean([1 - area[0] / area.sum() for area in areas]))
    assert (results["AvgFP"], results["AvgFN"], results["num_images"]) == (1, 1, 3)
