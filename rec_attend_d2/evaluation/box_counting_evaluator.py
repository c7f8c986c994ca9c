"""Counting and localisation with boxes alone: what the box proposer trained by itself can be judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, BoxMode, pairwise_ioa, pairwise_iou

from .metrics import in_crowd, pooled_ratio, summarize_counts
from .per_image_evaluator import PerImageEvaluator, Record, Results, checked_instances


@dataclass(frozen=True)
class BoxScores:
    """Scores of one image; ``best_box_iou`` in [0, 1] is the mean over its true boxes, NaN if it has none."""

    gt_count: int
    pred_count: int
    best_box_iou: float


class BoxCountingEvaluator(PerImageEvaluator[BoxScores]):
    """Count metrics of predicted boxes, and how well the best one fits each true object (results ``box_counting``).

    Predictions are ``pred_boxes`` (XYXY, absolute pixels of the original image); the classes are ignored. Boxes of no
    area are not counted. Crowd regions are treated as for masks, see
    :func:`~rec_attend_d2.evaluation.metrics.in_crowd`, with their boxes.

    ``best_box_IoU`` is the mean over all true objects of the data set of the best IoU with any predicted box of the
    image; where there is no true object it is 1 if nothing was predicted either, else 0.
    """

    task = "box_counting"

    def score(self, record: Record, output: Mapping[str, Any]) -> BoxScores:
        gt_boxes = _true_boxes(record["annotations"], iscrowd=0)
        crowd_boxes = _true_boxes(record["annotations"], iscrowd=1)
        return score_boxes(checked_instances(record, output).pred_boxes, gt_boxes, crowd_boxes)

    def summarize(self, scores: Sequence[BoxScores]) -> Results:
        pred_counts = np.array([s.pred_count for s in scores])
        gt_counts = np.array([s.gt_count for s in scores])
        total_iou = sum(s.best_box_iou * s.gt_count for s in scores if s.gt_count)
        metrics = {
            **summarize_counts(pred_counts, gt_counts),
            "best_box_IoU": pooled_ratio(total_iou, gt_counts.sum(), pred_counts.sum()),
            "num_images": float(len(scores)),
        }
        return {"box_counting": metrics}

    def write(self, folder: Path, scores: Sequence[BoxScores]) -> None:
        self.write_table(folder, scores)


def score_boxes(pred_boxes: Boxes, gt_boxes: Boxes, crowd_boxes: Boxes) -> BoxScores:
    """Scores of one image from its predicted [P], true [N] and crowd [C] boxes, XYXY in pixels of the same image."""
    pred_boxes = pred_boxes[pred_boxes.nonempty()]
    ignored = in_crowd(
        pairwise_ioa(crowd_boxes, pred_boxes).numpy().T,
        pairwise_iou(pred_boxes, gt_boxes).numpy(),
    )
    pred_boxes = pred_boxes[torch.from_numpy(~ignored)]
    best = pairwise_iou(pred_boxes, gt_boxes).numpy().max(axis=0, initial=0.0)
    return BoxScores(
        gt_count=len(gt_boxes),
        pred_count=len(pred_boxes),
        best_box_iou=float(best.mean()) if len(best) else float("nan"),
    )


def _true_boxes(annotations: Sequence[dict[str, Any]], iscrowd: int) -> Boxes:
    boxes = [
        BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        for annotation in annotations
        if annotation.get("iscrowd", 0) == iscrowd
    ]
    return Boxes(torch.as_tensor(np.array(boxes, dtype=np.float32).reshape(-1, 4)))
