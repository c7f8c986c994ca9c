"""What a model finds in images, in COCO's results format, and every figure that is computed from that.

Which predictions count as objects is decided by one rule for every model: its scores are cut at the threshold that
gives the largest mean SBD on training images. All figures come from the evaluators' own functions.

Shapes: `P` predicted and `N` true instances of an image, `H, W` its size in pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import build_detection_test_loader
from numpy.typing import NDArray
from torch import nn

from ..data.segmentation import rle_crop
from ..evaluation.coco_evaluator import CocoTruth, Detection, average_precision
from ..evaluation.counting_evaluator import true_masks
from ..evaluation.metrics import (
    ImageScores,
    drop_crowd,
    drop_empty,
    pairwise_dice,
    pairwise_iou,
    pooled_figures,
    score_image,
    summarize,
    symmetric_best_dice,
)
from ..structures import MaskCrops
from .measuring import seconds_of

# 0 keeps everything that the model's own config lets through.
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))
# More than any image has, so that AP looks at all predictions of every model.
MAX_DETECTIONS = 1000

Found = dict[Any, list[Detection]]
"""COCO results by image id."""


def of_images(detections: Sequence[Detection], image_ids: Sequence[Any]) -> Found:
    """Detections of a results file by image; those of an image without any are an empty list.

    Raises:
        ValueError: one is of another image.
    """
    grouped: Found = {image_id: [] for image_id in image_ids}
    for detection in detections:
        if detection["image_id"] not in grouped:
            raise ValueError(
                f"A prediction has image_id {detection['image_id']!r}, which no image of the data set has."
            )
        grouped[detection["image_id"]].append(detection)
    return grouped


@torch.no_grad()
def predict(
    model: nn.Module, records: Sequence[dict], mapper: Callable, truth: CocoTruth, device: str
) -> tuple[Found, list[float]]:
    """Run a model on images, one at a time.

    Args:
        model: in evaluation mode.
        records: the images, dicts of Detectron2's standard format.
        mapper: makes the model's input of a record.
        truth: of the records' data set, for ids and classes.
        device: of the model.

    Returns:
        What it finds, in the images' order, and each image's seconds: network, post-processing and masks at its size.

    Raises:
        ValueError: it finds no masks.
    """
    found: Found = {}
    seconds: list[float] = []
    output: list[dict] = []

    def run() -> None:
        output[:] = model(batch)

    for number, batch in enumerate(build_detection_test_loader(list(records), mapper=mapper)):
        if number == 0:
            run()  # which holds what happens once
        seconds.append(seconds_of(run, device))
        image_id = batch[0]["image_id"]
        if "instances" not in output[0] or not output[0]["instances"].has("pred_masks"):
            raise ValueError("The model finds no instance masks; only models that do can be compared.")
        found[image_id] = truth.detections(image_id, output[0]["instances"])
    return found, seconds


def predicted_masks(detections: Sequence[Detection], size: tuple[int, int]) -> MaskCrops:
    """P masks of an image's detections, whose ``segmentation`` is an RLE of the image's ``size`` (H, W)."""
    return MaskCrops.from_crops((rle_crop(detection["segmentation"], "A prediction") for detection in detections), size)


def scores_of(detections: Sequence[Detection]) -> NDArray[np.float64]:
    """Scores [P] of an image's detections, in [0, 1]."""
    return np.array([detection["score"] for detection in detections], dtype=np.float64)


def choose_threshold(records: Sequence[dict], found: Found) -> float:
    """The score threshold, of :data:`THRESHOLDS`, with the largest mean SBD over images with annotations.

    Of equal ones that with the smaller mean absolute count difference, and then the smaller.
    """
    sbd, difference = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for record in records:
        detections = found[record["image_id"]]
        masks = predicted_masks(detections, (record["height"], record["width"]))
        scores, filled = scores_of(detections), masks.areas() > 0
        truth = drop_empty(true_masks(record, iscrowd=0))
        dice = pairwise_dice(masks, truth)
        for index, threshold in enumerate(THRESHOLDS):
            kept = filled & (scores >= threshold)
            sbd[index] += symmetric_best_dice(dice[kept])
            difference[index] += abs(int(kept.sum()) - len(truth))
    sbd = sbd.round(9)  # sums of the same numbers are equal then
    best = min(range(len(THRESHOLDS)), key=lambda i: (-sbd[i], difference[i], THRESHOLDS[i]))
    return THRESHOLDS[best]


def score_predictions(record: dict, detections: Sequence[Detection], threshold: float) -> tuple[ImageScores, list]:
    """Score what reaches the threshold in one image, as CountingEvaluator does.

    Returns:
        The scores, and the largest IoU of every true object [N] with any of it, in [0, 1].
    """
    truth = true_masks(record, iscrowd=0)
    masks = predicted_masks(detections, (record["height"], record["width"]))[scores_of(detections) >= threshold]
    masks = drop_crowd(masks, truth, true_masks(record, iscrowd=1))
    return score_image(masks, truth), pairwise_iou(masks, truth).max(axis=0, initial=0.0).tolist()


def score_all(truth: CocoTruth, records: Sequence[dict], found: Found, threshold: float) -> dict[str, Any]:
    """Everything that predictions for the images of a data set score.

    Args:
        truth: of the data set.
        records: its images, all of them.
        found: all predictions; AP takes them all.
        threshold: score from which on they count as objects.

    Returns:
        ``threshold``; ``metrics``: AP in percent, :func:`.summarize` and :func:`pooled_figures`; ``images``, in the
        order of ``records``: ``image_id``, ``file_name``, :class:`.ImageScores` and ``best_iou``, the largest IoU of
        each true object.
    """
    scored = [score_predictions(record, found[record["image_id"]], threshold) for record in records]
    flat = [detection for detections in found.values() for detection in detections]
    scores = [scores for scores, _ in scored]
    metrics = {
        **average_precision(truth, flat, "segm", MAX_DETECTIONS),
        **summarize(scores),
        **pooled_figures(
            sum(s.pred_count for s in scores),
            sum(s.gt_count for s in scores),
            sum(s.matches50 for s in scores),
            sum(abs(s.pred_count - s.gt_count) for s in scores),
        ),
    }
    images = [
        {"image_id": record["image_id"], "file_name": record["file_name"], **vars(scores), "best_iou": best_iou}
        for record, (scores, best_iou) in zip(records, scored, strict=True)
    ]
    return {"threshold": threshold, "metrics": metrics, "images": images}
