"""The losses of a sequence (paper, section 3.3).

Shapes: `B` images, `T` steps, `N` instance slots.
"""

from collections.abc import Callable
from dataclasses import dataclass

from detectron2.config import CfgNode, configurable
from torch import Tensor

from ..layers.overlap import pairwise_soft_iou
from ..registry import look_up
from .losses import Comparison, class_loss, matched_mean, score_loss
from .matcher import build_matcher
from .registries import BOX_LOSS_REGISTRY, BOX_OVERLAP_REGISTRY, MASK_LOSS_REGISTRY
from .step_types import BoxSequence, MaskSequence
from .targets import Targets


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
    def __init__(
        self,
        *,
        matcher: Callable[[Tensor, Tensor], Tensor],
        box_loss: str,
        box_overlap: str,
        box_weight: float,
        score_weight: float,
    ):
        """
        Args:
            matcher: from overlap [B, T, N] and counts [B] to the matching [B, T, N].
            box_loss: name in BOX_LOSS_REGISTRY.
            box_overlap: name in BOX_OVERLAP_REGISTRY.
            box_weight, score_weight: weights in the total.
        """
        self.matcher = matcher
        self.box_loss = look_up(BOX_LOSS_REGISTRY, box_loss, "MODEL.REC_ATTEND.LOSS.BOX")
        self.box_overlap = look_up(BOX_OVERLAP_REGISTRY, box_overlap, "MODEL.REC_ATTEND.LOSS.BOX_OVERLAP")
        self.box_weight = box_weight
        self.score_weight = score_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.LOSS
        return {
            "matcher": build_matcher(cfg),
            "box_loss": node.BOX,
            "box_overlap": node.BOX_OVERLAP,
            "box_weight": node.BOX_WEIGHT,
            "score_weight": node.SCORE_WEIGHT,
        }

    def _compare_boxes(self, sequence: BoxSequence, targets: Targets) -> Comparison:
        overlap = self.box_overlap(sequence.proposals, sequence.box_maps, targets)
        match = self.matcher(overlap, targets.counts)
        return Comparison(sequence.box_maps, targets.box_maps, overlap, match, sequence, targets)

    def __call__(self, sequence: BoxSequence, targets: Targets) -> CriterionOutput:
        """Losses of all steps."""
        box = self._compare_boxes(sequence, targets)
        losses = {
            "loss_box": self.box_weight * self.box_loss(box),
            "loss_score": self.score_weight * score_loss(sequence.scores, box.match.sum(2)),
        }
        return CriterionOutput(losses, box, None)


class MaskCriterion(BoxCriterion):
    """Mask, box and score loss (stage C); a step's score should be high where its mask is matched."""

    @configurable
    def __init__(self, *, mask_loss: str, mask_weight: float, class_weight: float, **box_arguments):
        """
        Args:
            mask_loss: name in MASK_LOSS_REGISTRY.
            mask_weight, class_weight: weights in the total.
            box_arguments: those of :class:`BoxCriterion`.
        """
        super().__init__(**box_arguments)
        self.mask_loss = look_up(MASK_LOSS_REGISTRY, mask_loss, "MODEL.REC_ATTEND.LOSS.MASK")
        self.mask_weight = mask_weight
        self.class_weight = class_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.LOSS
        return {
            "mask_loss": node.MASK,
            "mask_weight": node.MASK_WEIGHT,
            "class_weight": node.CLASS_WEIGHT,
            **BoxCriterion.from_config(cfg),
        }

    def __call__(self, sequence: BoxSequence, targets: Targets) -> CriterionOutput:
        """Losses of all steps of a :class:`MaskSequence`."""
        assert isinstance(sequence, MaskSequence)
        box = self._compare_boxes(sequence, targets)
        overlap = pairwise_soft_iou(sequence.masks, targets.masks)
        match = self.matcher(overlap, targets.counts)
        mask = Comparison(sequence.masks, targets.masks, overlap, match, sequence, targets)
        losses = {
            "loss_mask": self.mask_weight * self.mask_loss(mask),
            "loss_box": self.box_weight * self.box_loss(box),
            "loss_score": self.score_weight * score_loss(sequence.scores, match.sum(2)),
        }
        if sequence.class_probabilities is not None:
            steps, slots = overlap.shape[1:]
            probabilities = sequence.class_probabilities[:, :, None].expand(-1, -1, slots, -1)
            every_pair = class_loss(probabilities, targets.classes[:, None].expand(-1, steps, -1))
            losses["loss_class"] = self.class_weight * matched_mean(every_pair, match)
        return CriterionOutput(losses, box, mask)
