"""The metrics of the paper on instance masks: counting, symmetric best dice, coverage."""

from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances

from ..data.segmentation import annotation_mask
from .metrics import ImageScores, Masks, drop_crowd, score_image, summarize
from .per_image_evaluator import PerImageEvaluator, Record, Results


class CountingEvaluator(PerImageEvaluator[ImageScores]):
    """Scores ``pred_masks`` against the data set's annotations, at the original size (results ``counting``).

    Classes are ignored. The count of an image is the number of predicted masks with at least one pixel. Crowd regions
    are not instances: nothing is matched to them, and predictions that lie mostly inside one are ignored, see
    :func:`~rec_attend_d2.evaluation.metrics.in_crowd`. The metrics are those of
    :func:`~rec_attend_d2.evaluation.metrics.summarize` (paper, section 4).
    """

    task = "counting"

    def score(self, record: Record, instances: Instances) -> ImageScores:
        if not instances.has("pred_masks"):
            raise ValueError(
                f"The predictions for '{record['file_name']}' have no pred_masks, only "
                f"{sorted(instances.get_fields())}: a model without masks is evaluated by BoxCountingEvaluator."
            )
        gt_masks = true_masks(record, iscrowd=0)
        pred_masks = instances.pred_masks.numpy().astype(bool)
        return score_image(drop_crowd(pred_masks, gt_masks, true_masks(record, iscrowd=1)), gt_masks)

    def summarize(self, scores: Sequence[ImageScores]) -> Results:
        return {"counting": summarize(scores)}


def true_masks(record: Record, iscrowd: int) -> Masks:
    """bool [N, H, W] of the annotations of one kind, at the original size; may have no instances."""
    size = (record["height"], record["width"])
    masks = [
        annotation_mask(annotation, size, f"{record['file_name']}: annotation number {index}")
        for index, annotation in enumerate(record["annotations"])
        if annotation.get("iscrowd", 0) == iscrowd
    ]
    return np.array(masks, dtype=bool).reshape(-1, *size)
