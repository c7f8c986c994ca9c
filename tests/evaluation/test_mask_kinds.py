"""Masks as crops and dense ones give the same, wherever instances are scored, written or drawn."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from rec_attend_d2.evaluation import score_image
from rec_attend_d2.evaluation.coco_evaluator import coco_results
from rec_attend_d2.evaluation.metrics import drop_crowd
from rec_attend_d2.evaluation.submission_cityscapes import image_files
from rec_attend_d2.evaluation.submission_cvppp import label_image
from rec_attend_d2.prediction import Prediction
from rec_attend_d2.structures import MaskCrops
from rec_attend_d2.visualization import draw_instances

SIZE = (40, 50)
BOXES = [(0, 0, 9, 12), (5, 6, 20, 30), (10, 0, 40, 50), (39, 49, 40, 50), (3, 3, 3, 3), (0, 20, 40, 21)]
TRUTH = np.zeros((2, *SIZE), bool)
TRUTH[0, :10, :10] = TRUTH[1, 12:38, 5:45] = True


def instances() -> Instances:
    """Of dense masks that overlap; one is empty, one a pixel."""
    masks = torch.zeros(len(BOXES), *SIZE, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, BOXES, strict=True):
        mask[top:bottom, left:right] = True
    found = Instances(SIZE, pred_masks=masks, scores=torch.tensor([0.3, 0.9, 0.5, 0.6, 0.7, 0.8]))
    found.pred_boxes = Boxes(torch.tensor(BOXES)[:, [1, 0, 3, 2]])
    found.pred_classes = torch.zeros(len(BOXES), dtype=torch.int64)
    return found


def comparable(result: object) -> object:
    """Equal of equal results, also where they hold NaN."""
    return (result.shape, result.dtype, result.tobytes()) if isinstance(result, np.ndarray) else repr(result)


@pytest.mark.parametrize(
    "use",
    [
        lambda found: score_image(found.pred_masks, TRUTH),
        lambda found: score_image(drop_crowd(found.pred_masks, TRUTH[:1], TRUTH[1:]), TRUTH[:1]),
        lambda found: coco_results(found, 3),
        lambda found: image_files("a_000001_000001", found),
        lambda found: label_image(found.pred_masks, found.scores),
        lambda found: draw_instances(np.full((*SIZE, 3), 30, np.uint8), found),
        lambda found: Prediction(found).labels,
        lambda found: found.pred_masks.numpy(),
    ],
    ids=["scores", "crowds", "coco", "cityscapes", "cvppp", "picture", "labels", "dense"],
)
def test_both_kinds_give_the_same(use: Callable[[Instances], object]):
    dense, crops = instances(), instances()
    crops.pred_masks = MaskCrops.from_masks(crops.pred_masks)
    for chosen in (slice(None), slice(0)):
        assert comparable(use(crops[chosen])) == comparable(use(dense[chosen]))
