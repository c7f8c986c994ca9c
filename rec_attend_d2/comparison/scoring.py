"""Figures of a model from its predictions, by the evaluators' own functions.

Which predictions count as objects is decided by one rule for every model: its scores are cut at the threshold that
gives the largest mean SBD on training images.

Shapes: `P` predicted and `N` true instances of an image, `H, W` its size in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.coco_evaluator import CocoTruth, Detection, average_precision
from ..evaluation.counting_evaluator import true_masks
from ..evaluation.metrics import (
    ImageScores,
    drop_crowd,
    drop_empty,
    pairwise_dice,
    pairwise_iou,
    score_image,
    summarize,
    symmetric_best_dice,
)
from .predictions import predicted_masks, scores_of

# 0 keeps everything that the model's own config lets through.
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))
# More than any image has, so that AP looks at all predictions of every model.
MAX_DETECTIONS = 1000


@dataclass(frozen=True)
class ScoredImage:
    """One image, scored.

    Attributes:
        image_id, file_name: of the data set.
        scores: of the predictions above the threshold.
        best_iou: [N] largest IoU of every true object with any of them, in [0, 1].
    """

    image_id: Any
    file_name: str
    scores: ImageScores
    best_iou: NDArray[np.float64]


def evenly_spaced(records: Sequence[dict], count: int) -> list[dict]:
    """At most so many of the images, spread evenly over the data set."""
    if len(records) <= count:
        return list(records)
    return [records[int(position)] for position in np.linspace(0, len(records) - 1, count)]


def choose_threshold(records: Sequence[dict], detections: Mapping[Any, list[Detection]]) -> float:
    """The score threshold, of :data:`THRESHOLDS`, with the largest mean SBD over images.

    Of equal ones that with the smaller mean absolute count difference, and then the smaller.

    Args:
        records: training images with annotations.
        detections: by image id.
    """
    sbd, difference = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for record in records:
        found = detections[record["image_id"]]
        masks = predicted_masks(found, (record["height"], record["width"]))
        scores, filled = scores_of(found), masks.any(axis=(1, 2))
        truth = drop_empty(true_masks(record, iscrowd=0))
        dice = pairwise_dice(masks, truth)
        for index, threshold in enumerate(THRESHOLDS):
            kept = filled & (scores >= threshold)
            sbd[index] += symmetric_best_dice(dice[kept])
            difference[index] += abs(int(kept.sum()) - len(truth))
    sbd = sbd.round(9)  # sums of the same numbers are equal then
    best = min(range(len(THRESHOLDS)), key=lambda i: (-sbd[i], difference[i], THRESHOLDS[i]))
    return THRESHOLDS[best]


def score_images(
    records: Sequence[dict], detections: Mapping[Any, list[Detection]], threshold: float
) -> list[ScoredImage]:
    """Score the predictions of every image that reach the threshold, as CountingEvaluator does."""
    scored = []
    for record in records:
        truth, found = true_masks(record, iscrowd=0), detections[record["image_id"]]
        masks = predicted_masks(found, (record["height"], record["width"]))[scores_of(found) >= threshold]
        masks = drop_crowd(masks, truth, true_masks(record, iscrowd=1))
        best_iou = pairwise_iou(masks, truth).max(axis=0, initial=0.0)
        scored.append(ScoredImage(record["image_id"], record["file_name"], score_image(masks, truth), best_iou))
    return scored


def summarize_images(
    images: Sequence[ScoredImage], truth: CocoTruth, detections: Mapping[Any, list[Detection]]
) -> dict[str, float]:
    """AP of all predictions (``AP``, ``AP50``, ...; percent), and counting metrics of those above the threshold."""
    flat = [detection for found in detections.values() for detection in found]
    precision = average_precision(truth, flat, "segm", MAX_DETECTIONS)
    return {**precision, **summarize([image.scores for image in images])}
