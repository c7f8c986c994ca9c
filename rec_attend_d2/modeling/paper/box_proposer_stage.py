"""Stage B: the box proposer learns alone, with true masks in its memory (original code, ``box_model``).

Shapes: `B` images, `T` steps, `H, W` network input.
"""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ...layers.boxes import pixel_edges, unpadded_boxes
from ..steps import Cut, ExtraMaps, Feeder, Step, StepInputs, Where, stack_steps
from .criterion import BoxCriterion
from .scheduled_sampling import TrueMemory
from .sequence import BoxProposal
from .sequence_model import SequenceModel
from .stop_scorer import HiddenStateScorer
from .targets import Targets


@META_ARCH_REGISTRY.register()
class RecAttendBoxProposer(SequenceModel):
    """Proposes boxes one after another; has no segmentation head, so that what it claims is the box as a soft map.

    Its weights start the box proposer of :class:`RecAttend`; its own scorer is not used there.
    """

    @configurable
    def __init__(self, *, box_scorer: nn.Module, **common: Any):
        """
        Args:
            box_scorer: from the proposer's last output to a score.
            common: arguments of :class:`SequenceModel`.
        """
        super().__init__(**common)
        self.box_scorer = box_scorer

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        common = cls.common_arguments(cfg)
        return {
            **common,
            "criterion": BoxCriterion(cfg),
            "scheduled_sampling": TrueMemory(cfg),
            "box_scorer": HiddenStateScorer(cfg, common["box_proposer"].hidden_dim),
            "stop_early": False,
        }

    def cut_out(self, inputs: StepInputs, proposal: BoxProposal, where: Where) -> Cut:
        """The box map, a coarse stand-in for the mask that stage B does not predict."""
        return Cut(self.attention.box_maps(stack_steps([proposal]), inputs.image_size)[:, 0])

    def decide(self, proposal: BoxProposal, cut: Cut) -> tuple[Tensor, Tensor | None]:
        """Scores [B], and class probabilities where there are semantic classes."""
        return self.box_scorer(proposal.hidden)

    def feeder(self, targets: Targets) -> Feeder:
        """Each step's memory takes the true mask whose box its own overlaps most, also in evaluation."""
        return self.scheduled_sampling.start(targets, self.attention)

    def box_maps(self, steps: Step, image_size: tuple[int, int]) -> Tensor:
        """Those that the steps have cut out."""
        assert steps.cut.mask is not None
        return steps.cut.mask

    def instances(self, steps: list[Step], extra: ExtraMaps, entry: dict) -> Instances:
        """See :meth:`RecurrentAttention.instances`; they have no masks."""
        original_size = self.original_size(entry)
        taken = stack_steps(steps)
        assert taken.claimed is not None
        keep = taken.claimed[0]
        # The proposer learns padded boxes; an object's own box is what a user of the instances expects.
        tight = unpadded_boxes(taken.proposal.boxes, *self.padding)
        boxes = Boxes(pixel_edges(tight).xyxy()[0, keep].float())
        assert self.image_size is not None
        boxes.scale(original_size[1] / self.image_size[1], original_size[0] / self.image_size[0])
        boxes.clip(original_size)
        result = Instances(original_size, pred_boxes=boxes, scores=taken.score[0, keep].float())
        result.pred_classes = torch.zeros_like(result.scores, dtype=torch.int64)
        return result[boxes.nonempty()]  # a box outside the image is clipped to nothing
