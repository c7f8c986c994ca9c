"""The paper's full model, trained in stage C: box, cut out, remember, decide whether to go on (paper, section 3.1).

Shapes: `B` images, `T` steps, `H, W` network input.
"""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor, nn

from ..registries import PAPER, SEGMENTATION_HEAD_REGISTRY, STOP_SCORER_REGISTRY, look_up_part
from ..steps import Cut, ExtraMaps, Feeder, Step, StepInputs, Where
from .criterion import MaskCriterion
from .inputs import input_maps
from .postprocessing import StrongestInstance
from .scheduled_sampling import ScheduledSampling
from .sequence import BoxProposal
from .sequence_model import SequenceModel
from .targets import Targets


@META_ARCH_REGISTRY.register()
class RecAttend(SequenceModel):
    """Recurrent-attention instance segmentation."""

    @configurable
    def __init__(
        self,
        *,
        segmentation_head: nn.Module,
        stop_scorer: nn.Module,
        postprocessor: StrongestInstance,
        mask_inputs: list[str],
        no_overwrite: bool,
        **common: Any,
    ):
        """
        Args:
            segmentation_head, stop_scorer, postprocessor: the parts.
            mask_inputs: maps that the patch is cut from.
            no_overwrite: a pixel once claimed cannot be claimed again: masks are multiplied by 1 - memory.
            common: arguments of :class:`SequenceModel`.
        """
        super().__init__(**common)
        self.segmentation_head = segmentation_head
        self.stop_scorer = stop_scorer
        self.postprocessor = postprocessor
        self.mask_inputs = mask_inputs
        self.no_overwrite = no_overwrite

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node, key = cfg.MODEL.REC_ATTEND, "MODEL.REC_ATTEND"
        name, head_key = node.SEGMENTATION_HEAD.NAME, f"{key}.SEGMENTATION_HEAD.NAME"
        head = look_up_part(SEGMENTATION_HEAD_REGISTRY, name, head_key, PAPER)(cfg)
        scorer = look_up_part(STOP_SCORER_REGISTRY, node.STOP_SCORER.NAME, f"{key}.STOP_SCORER.NAME", PAPER)
        common = cls.common_arguments(cfg)
        return {
            **common,
            "criterion": MaskCriterion(cfg),
            "scheduled_sampling": ScheduledSampling(cfg),
            "segmentation_head": head,
            "stop_scorer": scorer(cfg, common["box_proposer"].hidden_dim, head.feature_shape),
            "postprocessor": StrongestInstance(cfg),
            "mask_inputs": list(node.SEGMENTATION_HEAD.INPUTS),
            "no_overwrite": node.NO_OVERWRITE,
            "stop_early": node.TEST.STOP_EARLY,
        }

    def cut_out(self, inputs: StepInputs, proposal: BoxProposal, where: Where) -> Cut:
        """The patch at each box, the object in it, and its mask pasted back in its place."""
        window = self.attention.window(where.boxes, proposal, inputs.image_size)
        patch = self.attention.cut(input_maps(inputs, self.mask_inputs), window)
        patch_mask, features = self.segmentation_head(patch, inputs.number)
        mask = self.attention.paste(patch_mask, window)
        if self.no_overwrite:
            mask = mask * (1 - inputs.memory)
        return Cut(mask, patch, patch_mask, features)

    def decide(self, proposal: BoxProposal, cut: Cut) -> tuple[Tensor, None]:
        """Scores [B]; classes come from the semantic maps."""
        return self.stop_scorer(proposal.hidden, cut.features), None

    def feeder(self, targets: Targets) -> Feeder:
        """Scheduled sampling in training; in evaluation the truth makes no difference."""
        return self.scheduled_sampling.start(targets, self.attention) if self.training else Feeder()

    def instances(self, steps: list[Step], extra: ExtraMaps, entry: dict) -> Instances:
        """See :meth:`RecurrentAttention.instances`."""
        masks = torch.cat([step.cut.mask for step in steps if step.cut.mask is not None])
        scores = torch.cat([step.score for step in steps])
        foreground = None if extra.foreground is None else extra.foreground[0]
        return self.postprocessor(masks, scores, foreground, self.original_size(entry))
