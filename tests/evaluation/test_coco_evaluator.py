"""COCO's AP: equal to pycocotools' and Detectron2's, for any limit on the detections per image."""

import contextlib
import io
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from miniature.coco import write_coco
from rec_attend_d2.data.datasets.builtin import register_coco_subsets
from rec_attend_d2.data.datasets.coco_files import register_coco
from rec_attend_d2.data.segmentation import annotation_mask
from rec_attend_d2.evaluation import (
    AveragePrecisionEvaluator,
    ClassAgnosticBoxEvaluator,
    build_evaluator,
)
from rec_attend_d2.evaluation.coco_evaluator import average_precision, load_truth

COCO_METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


@pytest.fixture(autouse=True)
def _clean_catalog() -> Iterator[None]:
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("mini"), images=8)


@pytest.fixture
def all_categories(miniature) -> str:
    """A registered data set of all four categories."""
    register_coco("mini_all", str(miniature / "annotations" / "instances_val2017.json"), str(miniature / "val2017"))
    DatasetCatalog.get("mini_all")
    return "mini_all"


def instances(masks: np.ndarray, scores: list[float], classes: list[int]) -> Instances:
    """Predictions of masks [P, H, W] with their tight boxes."""
    result = Instances(masks.shape[1:])
    boxes = [mask_util.toBbox(mask_util.encode(np.asfortranarray(m, dtype=np.uint8))) for m in masks]
    xywh = torch.tensor(np.array(boxes, dtype=np.float32).reshape(-1, 4))
    result.pred_boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
    result.pred_masks = torch.from_numpy(masks.astype(bool))
    result.scores = torch.tensor(scores, dtype=torch.float32)
    result.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return result


def noisy_predictions(name: str, seed: int = 0) -> dict[int, Instances]:
    """For each true object (crowds too) three shifted copies, some of a wrong class; scores with ties."""
    rng = np.random.default_rng(seed)
    truth = load_truth(name)
    predictions = {}
    for image_id, image in truth.coco.imgs.items():
        masks, scores, classes = [], [], []
        for annotation in truth.coco.imgToAnns[image_id]:
            mask = truth.coco.annToMask(annotation)
            for shift in (0, 1, 2):
                masks.append(np.roll(mask, (int(rng.integers(0, shift + 1)), shift), axis=(0, 1)))
                scores.append(float(rng.integers(1, 9)) / 8)
                right = truth.class_ids.index(annotation["category_id"])
                classes.append(right if rng.random() < 0.8 else int(rng.integers(len(truth.class_ids))))
        shape = (image["height"], image["width"])
        predictions[image_id] = instances(np.array(masks).reshape(-1, *shape), scores, classes)
    return predictions


def run(evaluator, predictions: dict) -> dict[str, dict[str, float]]:
    evaluator.reset()
    for image_id, predicted in predictions.items():
        evaluator.process([{"image_id": image_id}], [{"instances": predicted}])
    return evaluator.evaluate()


class TestEqualToOthers:
    def test_to_pycocotools_own_summary(self, all_categories):
        predictions = noisy_predictions(all_categories)
        results = run(AveragePrecisionEvaluator(all_categories), predictions)["segm"]

        detections = []
        for image_id, predicted in predictions.items():
            for index in range(len(predicted)):
                rle = mask_util.encode(np.asfortranarray(predicted.pred_masks[index].numpy(), dtype=np.uint8))
                category = [1, 2, 3, 24][int(predicted.pred_classes[index])]
                score = float(predicted.scores[index])
                detections.append({"image_id": image_id, "category_id": category, "segmentation": rle, "score": score})
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(MetadataCatalog.get(all_categories).json_file)
            coco_eval = COCOeval(coco, coco.loadRes(detections), "segm")
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        expected = [100 * value if value >= 0 else math.nan for value in coco_eval.stats[:6]]
        assert [results[metric] for metric in COCO_METRICS] == pytest.approx(expected, nan_ok=True)
        assert 5 < results["AP"] < 95

    @pytest.mark.parametrize("task", ["segm", "bbox"])
    @pytest.mark.parametrize("limit", [11, 100])
    def test_to_detectron2_for_each_class(self, all_categories, task, limit):
        predictions = noisy_predictions(all_categories)
        truth = load_truth(all_categories)
        detections = [d for image_id, found in predictions.items() for d in truth.detections(image_id, found)]
        theirs = COCOEvaluator(all_categories, (task,), max_dets_per_image=limit, use_fast_impl=False)
        results, expected = average_precision(truth, detections, task, limit), run(theirs, predictions)[task]
        assert list(results) == list(expected) == [*COCO_METRICS, "AP-person", "AP-bicycle", "AP-car", "AP-zebra"]
        assert results == pytest.approx(expected, nan_ok=True)


# ---------------------------------------------------------------- many objects

SIZE = (100, 150)


def many_objects_record() -> dict:
    """150 squares of 8 x 8 pixels."""
    annotations = []
    for top in range(0, SIZE[0], 10):
        for left in range(0, SIZE[1], 10):
            mask = np.zeros(SIZE, dtype=np.uint8, order="F")
            mask[top : top + 8, left : left + 8] = 1
            rle = mask_util.encode(mask)
            annotations.append(
                {
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    "bbox": [left, top, left + 8, top + 8],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": 0,
                    "iscrowd": 0,
                }
            )
    return {
        "file_name": "many.png",
        "image_id": "many",  # ids need not be numbers
        "height": SIZE[0],
        "width": SIZE[1],
        "annotations": annotations,
    }


@pytest.fixture
def many_objects() -> tuple[str, dict[str, Instances]]:
    """A data set of one image with 150 objects, and predictions of all of them."""
    record = many_objects_record()
    DatasetCatalog.register("many_objects", lambda: [record])
    MetadataCatalog.get("many_objects").set(thing_classes=["leaf"], evaluator_type="coco")
    masks = np.array([mask_util.decode(a["segmentation"]) for a in record["annotations"]])
    return "many_objects", {"many": instances(masks, [1 - 0.001 * i for i in range(150)], [0] * 150)}


class TestLimit:
    # Recall ends at limit / 150, and COCO averages the precision over 101 values of recall from 0 to 1.
    @pytest.mark.parametrize(
        ("limit", "expected"), [(100, 100 * 67 / 101), (200, 100), (5, 100 * 4 / 101), (1, 100 / 101)]
    )
    @pytest.mark.parametrize(("architecture", "task"), [("RecAttend", "segm"), ("RecAttendBoxProposer", "bbox")])
    def test_config_key(self, many_objects, tmp_path, architecture, task, limit, expected):
        name, predictions = many_objects
        cfg = get_cfg()
        cfg.OUTPUT_DIR = str(tmp_path)
        cfg.MODEL.META_ARCHITECTURE = architecture
        cfg.TEST.DETECTIONS_PER_IMAGE = limit
        results = run(build_evaluator(cfg, name), predictions)[task]
        for metric in ("AP", "AP50", "AP75", "APs"):
            assert results[metric] == pytest.approx(expected)
        assert math.isnan(results["APl"])

    def test_default_is_cocos_and_warns(self, many_objects, caplog):
        name, predictions = many_objects
        with caplog.at_level(logging.WARNING):
            results = run(AveragePrecisionEvaluator(name), predictions)
        assert results["segm"]["AP"] == pytest.approx(100 * 67 / 101)
        assert "1 image(s) have more than 100 predictions" in caplog.text
        assert "TEST.DETECTIONS_PER_IMAGE" in caplog.text

    def test_no_warning_below_the_limit(self, many_objects, caplog):
        name, predictions = many_objects
        with caplog.at_level(logging.WARNING):
            run(AveragePrecisionEvaluator(name, max_detections=150), predictions)
        assert caplog.text == ""

    @pytest.mark.parametrize("limit", [0, -1])
    def test_not_positive(self, many_objects, limit):
        with pytest.raises(ValueError, match="TEST.DETECTIONS_PER_IMAGE to at least 1"):
            AveragePrecisionEvaluator(many_objects[0], max_detections=limit)


# ---------------------------------------------------------------- category subsets


def perfect_predictions(name: str) -> dict[int, Instances]:
    """Of the objects that are no crowds, with the classes of the data set's dicts."""
    truth = load_truth(name)
    predictions = {}
    for record in DatasetCatalog.get(name):
        size = (record["height"], record["width"])
        objects = [a for a in record["annotations"] if not a["iscrowd"]]
        masks = [truth.coco.annToMask(truth.coco.anns[a["id"]]) for a in objects]
        predictions[record["image_id"]] = instances(
            np.array(masks).reshape(-1, *size), [0.9] * len(masks), [a["category_id"] for a in objects]
        )
    return predictions


@pytest.mark.parametrize("odd", ["id 0", "annotation twice", "image twice"])
def test_perfect_predictions_of_odd_files_have_an_ap_of_100(squares, tmp_path, odd):
    content = json.loads((squares / "squares.json").read_text())
    annotations, images = content["annotations"], content["images"]
    if odd == "id 0":
        annotations[0]["id"] = 0
    elif odd == "annotation twice":
        annotations.append({**annotations[-1], "id": 99})
    else:
        images.append({**images[1], "id": 9})
        annotations.append({**annotations[0], "id": 99, "image_id": 9})
    (tmp_path / "odd.json").write_text(json.dumps(content))
    name = f"odd_{odd}"
    register_coco(name, str(tmp_path / "odd.json"), str(squares))
    found = {}
    for record in DatasetCatalog.get(name):
        size = (record["height"], record["width"])
        masks = [annotation_mask(item, size, "") for item in record["annotations"]]
        found[record["image_id"]] = instances(np.array(masks).reshape(-1, *size), [0.9] * len(masks), [0] * len(masks))
    assert sorted(map(len, found.values())) == [0, 1, 2, 3]
    assert run(AveragePrecisionEvaluator(name), found)["segm"]["AP"] == pytest.approx(100)


class TestSubset:
    @pytest.fixture(autouse=True)
    def _register(self, miniature):
        register_coco_subsets(miniature.parent)

    def test_truth_is_the_subset(self, miniature):
        truth = load_truth("coco_2017_val_zebra")
        assert (truth.class_ids, truth.class_names) == ([24], ["zebra"])
        assert {a["category_id"] for a in truth.coco.anns.values()} == {24}
        assert set(truth.coco.imgs) == {record["image_id"] for record in DatasetCatalog.get("coco_2017_val_zebra")}

    @pytest.mark.parametrize("category", ["person", "zebra"])
    def test_perfect_predictions(self, tmp_path, category):
        name = f"coco_2017_val_{category}"
        results = run(AveragePrecisionEvaluator(name, str(tmp_path)), perfect_predictions(name))
        assert results["segm"]["AP"] == pytest.approx(100)
        assert list(results["segm"]) == COCO_METRICS
        entries = json.loads((tmp_path / "coco_instances_results.json").read_text())
        assert {entry["category_id"] for entry in entries} == {{"person": 1, "zebra": 24}[category]}

    def test_prediction_inside_a_crowd_is_neither_right_nor_wrong(self):
        name = "coco_2017_val_person"
        truth, predictions = load_truth(name), perfect_predictions(name)
        crowd = next(a for a in truth.coco.anns.values() if a["iscrowd"] and a["image_id"] == 100004)
        mask = truth.coco.annToMask(crowd)
        assert len(predictions[100004]) == 0
        predictions[100004] = instances(mask[None], [1.0], [0])
        assert run(AveragePrecisionEvaluator(name), predictions)["segm"]["AP"] == pytest.approx(100)
        predictions[100004] = instances(1 - mask[None], [1.0], [0])
        assert run(AveragePrecisionEvaluator(name), predictions)["segm"]["AP"] < 95

    def test_class_of_another_subset(self):
        evaluator = AveragePrecisionEvaluator("coco_2017_val_zebra")
        with pytest.raises(ValueError, match=r"000000100001\.jpg' has class 1, but the data set's classes are 0 to 0"):
            run(evaluator, {100001: instances(np.ones((1, 96, 128)), [1.0], [1])})


# ---------------------------------------------------------------- what else can happen


class TestOddCases:
    def test_class_agnostic_boxes_ignore_categories(self, all_categories):
        predictions = perfect_predictions(all_categories)
        for predicted in predictions.values():
            predicted.remove("pred_classes")
            predicted.remove("pred_masks")
        results = run(ClassAgnosticBoxEvaluator(all_categories), predictions)
        assert list(results) == ["bbox"] and list(results["bbox"]) == COCO_METRICS
        assert results["bbox"]["AP"] == pytest.approx(100)
        # The truth of other evaluators is not touched.
        assert load_truth(all_categories).class_ids == [1, 2, 3, 24]

    def test_no_predictions_are_zero_for_every_class_that_exists(self, all_categories):
        truth = load_truth(all_categories)
        results = average_precision(truth, [], "segm")
        assert {results[f"AP-{name}"] for name in truth.class_names} == {results["AP"]} == {0}

    def test_class_without_true_objects_is_nan_and_not_in_the_mean(self, many_objects):
        name, predictions = many_objects
        MetadataCatalog.get(name).thing_classes.append("stone")
        results = run(AveragePrecisionEvaluator(name, max_detections=150), predictions)["segm"]
        assert results["AP"] == results["AP-leaf"] == pytest.approx(100)
        assert math.isnan(results["AP-stone"])

    def test_an_image_of_two_processes_counts_once(self, many_objects, monkeypatch):
        name, predictions = many_objects
        monkeypatch.setattr(comm, "gather", lambda values, dst: [values, dict(values)])
        evaluator = AveragePrecisionEvaluator(name, max_detections=300)
        assert run(evaluator, predictions)["segm"]["AP"] == pytest.approx(100)

    def test_only_the_main_process_has_results(self, many_objects, monkeypatch):
        name, predictions = many_objects
        evaluator = AveragePrecisionEvaluator(name)
        monkeypatch.setattr(comm, "gather", lambda values, dst: [])
        monkeypatch.setattr(comm, "is_main_process", lambda: False)
        assert run(evaluator, predictions) == {}

    def test_without_annotations_there_is_a_file_but_no_ap(self, miniature, all_categories, tmp_path, caplog):
        content = json.loads((miniature / "annotations" / "instances_val2017.json").read_text())
        del content["annotations"]
        (tmp_path / "image_info.json").write_text(json.dumps(content))
        predictions = perfect_predictions(all_categories)
        register_coco_instances("mini_test", {}, str(tmp_path / "image_info.json"), str(miniature / "val2017"))
        assert run(AveragePrecisionEvaluator("mini_test", str(tmp_path)), predictions) == {}
        assert "'mini_test' has no annotations" in caplog.text
        entries = json.loads((tmp_path / "coco_instances_results.json").read_text())
        assert len(entries) == sum(map(len, predictions.values())) > 0

    def test_unknown_image(self, all_categories):
        with pytest.raises(ValueError, match="image_id 7. is not in data set"):
            run(AveragePrecisionEvaluator(all_categories), {7: instances(np.zeros((0, 4, 4)), [], [])})

    def test_wrong_size(self, all_categories):
        evaluator = AveragePrecisionEvaluator(all_categories)
        with pytest.raises(ValueError, match=r"000000100001\.jpg'.*\(128, 96\), but its original size is \(96, 128\)"):
            run(evaluator, {100001: instances(np.ones((1, 128, 96)), [1.0], [0])})

    def test_metadata_that_do_not_agree(self, miniature):
        json_file = str(miniature / "annotations" / "instances_val2017.json")
        register_coco("mini_wrong", json_file, str(miniature / "val2017"))
        MetadataCatalog.get("mini_wrong").set(thing_classes=["zebra"])
        with pytest.raises(ValueError, match=r"'mini_wrong' has the category ids \[1, 2, 3, 24\].*Make them agree"):
            load_truth("mini_wrong")

    def test_missing_file_is_reported_by_the_loader(self, tmp_path):
        register_coco_subsets(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"Unpack COCO's annotations_trainval2017\.zip"):
            load_truth("coco_2017_val_person")
