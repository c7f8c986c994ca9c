"""The losses of a sequence (paper, section 3.3).

Shapes: `B` images, `T` steps, `N` instance slots.
"""

from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor

from ...layers.overlap import pairwise_soft_iou
from ...registry import look_up
from .losses import BOX_LOSSES, BOX_OVERLAPS, MASK_LOSSES, Comparison, score_loss
from .matcher import MATCHERS
from .sequence import StepSequence
from .targets import Targets

_KEY = "MODEL.REC_ATTEND.LOSS"


@dataclass
class CriterionOutput:
    """Losses and what they were computed from.

    Attributes:
        losses: scalars by name, weighted; their sum is the total without weight decay.
        box: predicted and true box maps, matched.
        mask: predicted and true masks, matched; None in stage B.
    """

    losses: dict[str, Tensor]
    box: Comparison
    mask: Comparison | None


class BoxCriterion:
    """Box loss and score loss (stage B); a step's score should be high where its box is matched."""

    @configurable
    def __init__(self, *, matcher: str, box_loss: str, box_overlap: str, score_weight: float):
        """
        Args:
            matcher: name in MATCHERS.
            box_loss: name in BOX_LOSSES.
            box_overlap: name in BOX_OVERLAPS.
            score_weight: of the score's loss in the total.
        """
        self.matcher = look_up(MATCHERS, matcher, f"{_KEY}.MATCHER")
        self.box_loss = look_up(BOX_LOSSES, box_loss, f"{_KEY}.BOX")
        self.box_overlap = look_up(BOX_OVERLAPS, box_overlap, f"{_KEY}.BOX_OVERLAP")
        self.score_weight = score_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.LOSS
        return {
            "matcher": node.MATCHER,
            "box_loss": node.BOX,
            "box_overlap": node.BOX_OVERLAP,
            "score_weight": node.SCORE_WEIGHT,
        }

    def _compare_boxes(self, sequence: StepSequence, targets: Targets) -> Comparison:
        overlap = self.box_overlap(sequence.steps.proposal, sequence.box_maps, targets)
        match = self.matcher(overlap, targets.counts)
        return Comparison(sequence.box_maps, targets.box_maps, overlap, match, sequence, targets)

    def __call__(self, sequence: StepSequence, targets: Targets) -> CriterionOutput:
        """Losses of all steps."""
        box = self._compare_boxes(sequence, targets)
        losses = {
            "loss_box": self.box_loss(box),
            "loss_score": self.score_weight * score_loss(sequence.steps.score, box.match.sum(2)),
        }
        return CriterionOutput(losses, box, None)


class MaskCriterion(BoxCriterion):
    """Mask, box and score loss (stage C); a step's score should be high where its mask is matched."""

    @configurable
    def __init__(self, *, mask_loss: str, **box_arguments: Any):
        """
        Args:
            mask_loss: name in MASK_LOSSES.
            box_arguments: those of :class:`BoxCriterion`.
        """
        super().__init__(**box_arguments)
        self.mask_loss = look_up(MASK_LOSSES, mask_loss, f"{_KEY}.MASK")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {"mask_loss": cfg.MODEL.REC_ATTEND.LOSS.MASK, **BoxCriterion.from_config(cfg)}

    def __call__(self, sequence: StepSequence, targets: Targets) -> CriterionOutput:
        """Losses of all steps."""
        box = self._compare_boxes(sequence, targets)
        overlap = pairwise_soft_iou(sequence.masks, targets.masks)
        match = self.matcher(overlap, targets.counts)
        mask = Comparison(sequence.masks, targets.masks, overlap, match, sequence, targets)
        losses = {
            "loss_mask": self.mask_loss(mask),
            "loss_box": self.box_loss(box),
            "loss_score": self.score_weight * score_loss(sequence.steps.score, match.sum(2)),
        }
        return CriterionOutput(losses, box, mask)
