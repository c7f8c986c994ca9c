"""Pictures of single images: the best, the median and the worst, each with the truth and every model's result."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances

from ..data.image_io import read_image
from ..evaluation.coco_evaluator import Detection
from ..visualization import draw_instances, side_by_side, true_instances
from .predictions import predicted_masks, scores_of

IMAGES_PER_RANK = 2


def ranked(images_of_models: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[int]]:
    """Positions of the images with the largest, the middle and the smallest mean SBD of all models.

    Returns:
        "best", "median" and "worst" to positions; no image is there twice.
    """
    sbd = np.mean([[image["sbd"] for image in images] for images in images_of_models.values()], axis=0)
    order = np.argsort(-sbd, kind="stable").tolist()
    best, rest = order[:IMAGES_PER_RANK], order[IMAGES_PER_RANK:]
    worst = rest[max(0, len(rest) - IMAGES_PER_RANK) :]
    middle = rest[: len(rest) - len(worst)]
    start = max(0, len(middle) - IMAGES_PER_RANK) // 2
    return {"best": best, "median": middle[start : start + IMAGES_PER_RANK], "worst": worst}


def draw_image(
    record: dict,
    detections_of_models: Mapping[str, Sequence[Detection]],
    thresholds: Mapping[str, float],
    contrast_percentiles: Sequence[float],
) -> np.ndarray:
    """The image, the truth and every model's instances above its threshold beside each other, RGB [H, W, 3].

    Args:
        record: of the image, with annotations.
        detections_of_models: for this image, by name of the model.
        thresholds: of the scores, by name of the model.
        contrast_percentiles: how the image is shown, see :func:`..data.image_io.read_image`.
    """
    image = read_image(record["file_name"], contrast_percentiles)[:, :, ::-1]
    size = image.shape[:2]
    pictures = {"truth": draw_instances(image, true_instances(record, size))}
    for name, detections in detections_of_models.items():
        masks = predicted_masks(detections, size)[scores_of(detections) >= thresholds[name]]
        pictures[name] = draw_instances(image, Instances(size, pred_masks=torch.from_numpy(masks)))
    return side_by_side(pictures)
