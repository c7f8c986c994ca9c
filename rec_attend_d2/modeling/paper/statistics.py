"""Numbers that tell how training goes, without being optimised.

Shapes: `B` images, `T` steps, `N` instance slots.
"""

import torch
from torch import Tensor

from ...layers.boxes import CenterBoxes
from ...layers.overlap import pairwise_dice, pairwise_soft_iou
from .criterion import CriterionOutput
from .losses import Comparison, matched_mean, weighted_coverage

SCORE_THRESHOLD = 0.5
MASK_THRESHOLD = 0.5


def _unweighted_coverage(overlap: Tensor, valid: Tensor) -> Tensor:
    best = overlap.amax(1) * valid
    return (best.sum(1) / valid.sum(1).clamp(min=1)).mean()


def count_statistics(scores: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Count accuracy and errors, counting the steps whose score is above 0.5.

    Args:
        scores: [B, T].
        counts: [B] true counts.
    """
    error = (scores > SCORE_THRESHOLD).sum(1) - counts
    return {
        "count_acc": (error == 0).float().mean(),
        "dic": error.float().mean(),
        "dic_abs": error.abs().float().mean(),
    }


def mask_statistics(mask: Comparison) -> dict[str, Tensor]:
    """Mean soft and hard IoU and Dice of matched pairs, and the coverages (weighted by area, or not)."""
    hard_maps = (mask.pred_maps > MASK_THRESHOLD).to(mask.pred_maps)
    hard = pairwise_soft_iou(hard_maps, mask.gt_maps)
    return {
        "iou_soft": matched_mean(mask.overlap, mask.match),
        "iou_hard": matched_mean(hard, mask.match),
        "dice": matched_mean(pairwise_dice(hard_maps, mask.gt_maps), mask.match),
        "wt_cov_soft": weighted_coverage(mask.overlap, mask.gt_maps),
        "wt_cov_hard": weighted_coverage(hard, mask.gt_maps),
        "unwt_cov_soft": _unweighted_coverage(mask.overlap, mask.targets.valid),
        "unwt_cov_hard": _unweighted_coverage(hard, mask.targets.valid),
    }


def proposal_statistics(boxes: CenterBoxes, scores: Tensor) -> dict[str, Tensor]:
    """What tells that boxes or scores have become useless.

    Args:
        boxes: proposed, [B, T, 2].
        scores: [B, T].

    Returns:
        ``box_side``: mean of the boxes' shorter sides in pixels; ``box_spread`` and ``score_spread``: largest minus
        smallest coordinate (pixels) and score, which are 0 where all are equal, or where there is one only.
    """
    places = torch.cat([boxes.center, boxes.size], dim=-1).flatten(0, 1)
    return {
        "box_side": boxes.size.amin(-1).mean(),
        "box_spread": (places.amax(0) - places.amin(0)).amax(),
        "score_spread": scores.max() - scores.min(),
    }


@torch.no_grad()
def training_statistics(output: CriterionOutput) -> dict[str, Tensor]:
    """All statistics of a batch, scalars by name."""
    box = output.box
    statistics = count_statistics(box.sequence.steps.score, box.targets.counts)
    statistics["box_iou"] = matched_mean(box.overlap, box.match)
    statistics.update(proposal_statistics(box.sequence.steps.proposal.boxes, box.sequence.steps.score))
    if output.mask is not None:
        statistics.update(mask_statistics(output.mask))
    return statistics
