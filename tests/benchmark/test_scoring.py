"""One rule for every model: the threshold, and the scores of what reaches it."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_util

from rec_attend_d2.benchmark.scoring import (
    THRESHOLDS,
    choose_threshold,
    of_images,
    predict,
    predicted_masks,
    score_all,
    score_predictions,
    scores_of,
)
from rec_attend_d2.data.datasets import register_coco_files
from rec_attend_d2.evaluation import CountingEvaluator
from rec_attend_d2.evaluation.coco_evaluator import load_truth
from rec_attend_d2.evaluation.counting_evaluator import true_masks
from rec_attend_d2.evaluation.metrics import summarize

NAME = "squares_scoring"


@pytest.fixture
def records(squares) -> list[dict]:
    register_coco_files([[NAME, str(squares / "squares.json"), str(squares)]])
    return DatasetCatalog.get(NAME)


def detection(image_id: int, mask: np.ndarray, score: float) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    box = mask_util.toBbox(rle).tolist()
    rle["counts"] = rle["counts"].decode("ascii")
    return {"image_id": image_id, "category_id": 1, "score": score, "segmentation": rle, "bbox": box}


def noisy_detections(records: list[dict]) -> dict:
    """The truth with scores of 0.8 and 0.62, and in every image a square of nothing with 0.6."""
    nothing = np.zeros((64, 64), bool)
    nothing[50:60, 2:12] = True
    found = []
    for record in records:
        id_ = record["image_id"]
        found += [detection(id_, mask, 0.62 if n else 0.8) for n, mask in enumerate(true_masks(record, iscrowd=0))]
        found.append(detection(id_, nothing, 0.6))
    return of_images(found, [record["image_id"] for record in records])


def score_each(records: list[dict], detections: dict, threshold: float) -> list[tuple]:
    return [score_predictions(record, detections[record["image_id"]], threshold) for record in records]


def test_the_threshold_keeps_the_truth_and_no_more(records):
    detections = noisy_detections(records)
    # 0.65 loses objects, 0.6 keeps what is none: of the two images of one rule the better mean SBD decides.
    sbd = {t: np.mean([scores.sbd for scores, _ in score_each(records, detections, t)]) for t in THRESHOLDS}
    chosen = choose_threshold(records, detections)
    assert sbd[chosen] == max(sbd.values()) > sbd[0.6] and chosen == 0.65


def test_of_equally_good_thresholds_the_one_that_counts_better_is_taken(records):
    one = [records[1]]
    mask = true_masks(one[0], iscrowd=0)[0]
    # Two predictions of the same square: either threshold gives an SBD of 1, but only one the right count.
    found = {2: [detection(2, mask, 0.9), detection(2, mask, 0.5)]}
    assert choose_threshold(one, found) == 0.55
    assert choose_threshold(one, {2: []}) == 0


def test_scores_are_the_evaluators(records):
    detections = noisy_detections(records)
    evaluator = CountingEvaluator(NAME, distributed=False)
    for threshold in (0.0, 0.61, 0.7, 0.9):
        evaluator.reset()
        for record in records:
            found = [d for d in detections[record["image_id"]] if d["score"] >= threshold]
            instances = Instances((64, 64), pred_masks=predicted_masks(found, (64, 64)))
            evaluator.process([record], [{"instances": instances}])
        scores = [scores for scores, _ in score_each(records, detections, threshold)]
        assert summarize(scores) == evaluator.evaluate()["counting"]
    best = [best_iou for _, best_iou in score_each(records, detections, 0.7)]
    assert best == [[], [1.0], [1.0, 0.0], [1.0, 0.0, 0.0]]


def test_all_figures_of_a_data_set(records):
    detections = noisy_detections(records)
    scored = score_all(load_truth(NAME), records, detections, 0.61)
    assert scored["threshold"] == 0.61 and [image["image_id"] for image in scored["images"]] == [1, 2, 3, 4]
    metrics = scored["metrics"]
    assert (metrics["SBD"], metrics["relative_count_error"], metrics["F1"]) == (1, 0, 1)
    # The squares of nothing rank below all objects.
    assert metrics["AP"] == 100
    # Counted, they are four objects too many where there are six.
    metrics = score_all(load_truth(NAME), records, detections, 0.0)["metrics"]
    assert metrics["relative_count_error"] == pytest.approx(4 / 6) and metrics["F1"] == 2 * 6 / (10 + 6)
    precision, recall = metrics["precision50"], metrics["recall50"]
    assert metrics["F1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_prediction_for_no_image_is_refused():
    with pytest.raises(ValueError, match="image_id 7, which no image of"):
        of_images([{"image_id": 7}], [1, 2])


class FirstPixels(torch.nn.Module):
    """Finds in every image the same corner, with the image's brightness as score."""

    def forward(self, batch):
        (entry,) = batch
        masks = torch.zeros(1, 64, 64, dtype=torch.bool)
        masks[:, :2, :3] = True
        fields = {"pred_masks": masks, "scores": entry["image"].float().mean()[None] / 255}
        fields |= {
            "pred_classes": torch.zeros(1, dtype=torch.int64),
            "pred_boxes": Boxes(torch.tensor([[0, 0, 3, 2.0]])),
        }
        return [{"instances": Instances((64, 64), **fields)}]


class NoMasks(torch.nn.Module):
    """A model of another task."""

    def forward(self, batch):
        return [{"sem_seg": torch.zeros(1, 64, 64)}]


def as_input(record: dict) -> dict:
    return {**record, "image": torch.full((3, 64, 64), 51 * record["image_id"], dtype=torch.uint8)}


def test_predictions_hold_every_image(records):
    found, seconds = predict(FirstPixels(), records, as_input, load_truth(NAME), "cpu")
    assert list(found) == [1, 2, 3, 4]
    assert len(seconds) == 4 and all(value > 0 for value in seconds)
    flat = [detection for detections in found.values() for detection in detections]
    assert [d["category_id"] for d in flat] == [1] * 4
    assert of_images(flat, [1, 2, 3, 4]) == found
    assert scores_of(flat) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert predicted_masks(found[3], (64, 64)).areas().tolist() == [6]
    assert predicted_masks([], (64, 64)).shape == (0, 64, 64)


def test_a_model_without_masks_is_refused(records):
    with pytest.raises(ValueError, match="finds no instance masks"):
        predict(NoMasks(), records, as_input, load_truth(NAME), "cpu")
