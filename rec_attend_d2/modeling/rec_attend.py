"""The full model: box, cut out, remember, decide whether to go on (paper, section 3.1).

Shapes: `B` images, `T` steps, `H, W` network input.
"""

from collections.abc import Iterator

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor, nn

from .criterion import MaskCriterion
from .inputs import concatenate_inputs
from .postprocessing import build_postprocessor
from .recurrent_model import RecurrentModel
from .scheduled_sampling import OwnPredictions, ScheduledSampling, StepFeeder
from .segmentation_head import build_segmentation_head
from .step_types import BoxSequence, ExtraMaps, MaskSequence, MaskStep, stack_steps
from .stop_scorer import build_stop_scorer
from .targets import Targets


@META_ARCH_REGISTRY.register()
class RecAttend(RecurrentModel):
    """Recurrent-attention instance segmentation, trained in stage C."""

    @configurable
    def __init__(
        self,
        *,
        segmentation_head: nn.Module,
        stop_scorer: nn.Module,
        postprocessor,
        mask_inputs: list[str],
        stop_early: bool,
        stop_threshold: float,
        **common,
    ):
        """
        Args:
            segmentation_head, stop_scorer, postprocessor: the parts.
            mask_inputs: maps that the patch is cut from.
            stop_early: at inference stop at the first score below ``stop_threshold`` instead of running all steps.
            common: arguments of :class:`RecurrentModel`.
        """
        super().__init__(**common)
        self.segmentation_head = segmentation_head
        self.stop_scorer = stop_scorer
        self.postprocessor = postprocessor
        self.mask_inputs = mask_inputs
        self.stop_early = stop_early
        self.stop_threshold = stop_threshold

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND
        segmentation_head = build_segmentation_head(cfg)
        return {
            **cls.common_arguments(cfg),
            "criterion": MaskCriterion(cfg),
            "scheduled_sampling": ScheduledSampling(cfg),
            "segmentation_head": segmentation_head,
            "stop_scorer": build_stop_scorer(cfg, segmentation_head.feature_dim),
            "postprocessor": build_postprocessor(cfg),
            "mask_inputs": list(node.SEGMENTATION_HEAD.INPUTS),
            "stop_early": node.TEST.STOP_EARLY,
            "stop_threshold": node.TEST.SCORE_THRESHOLD,
        }

    def _steps(self, images: Tensor, extra: ExtraMaps, feeder: StepFeeder) -> Iterator[MaskStep]:
        """The steps one after another, at most T; whoever has seen enough stops asking."""
        memory = self.memory.initial(images)
        for step in range(self.time_steps):
            proposal = self._propose(images, memory, extra, step)
            boxes = feeder.boxes(proposal, step)
            window = self.attention.window(boxes, proposal)
            patch = self.attention.extract(concatenate_inputs(images, memory, extra, self.mask_inputs), window)
            patch_mask, features = self.segmentation_head(patch, step)
            mask = self.memory.visible(self.attention.paste(patch_mask, window), memory)
            score = self.stop_scorer(proposal.hidden, features)
            yield MaskStep(proposal, boxes, patch, patch_mask, mask, score, memory)
            memory = self.memory.update(memory, feeder.claimed(mask, step))

    def _sequence(self, steps: list[MaskStep]) -> MaskSequence:
        stacked = stack_steps(steps)
        return MaskSequence(
            proposals=stacked.proposal,
            scores=stacked.score,
            class_probabilities=None,
            memories=stacked.memory,
            box_maps=self.attention.box_maps(stacked.proposal),
            masks=stacked.mask,
            patches=stacked.patch,
            patch_masks=stacked.patch_mask,
            used_boxes=stacked.used_boxes,
        )

    def unroll(
        self, images: Tensor, extra_maps: ExtraMaps | None = None, targets: Targets | None = None
    ) -> MaskSequence:
        """Run all T steps and return every step's internals.

        Args:
            images: [B, 3, H, W], normalised as by :meth:`preprocess_image`.
            extra_maps: angle and foreground maps, where the config uses them.
            targets: true instances; in training mode scheduled sampling feeds them to the steps. In evaluation mode
                they make no difference.
        """
        extra = extra_maps or ExtraMaps()
        feeder: StepFeeder = OwnPredictions()
        if self.training and targets is not None:
            feeder = self.scheduled_sampling.start(targets, self.attention)
        return self._sequence(list(self._steps(images, extra, feeder)))

    def _infer(self, images: Tensor, extra: ExtraMaps) -> MaskSequence:
        """Like :meth:`unroll`, but stops as the paper does: an image is done at its first score below the threshold.

        The scores of an image's steps after that are 0. The sequence has as many steps as the image with most objects
        needs.
        """
        if not self.stop_early:
            return self.unroll(images, extra)
        going_on = torch.ones(len(images), dtype=torch.bool, device=images.device)
        steps = []
        for result in self._steps(images, extra, OwnPredictions()):
            going_on = going_on & (result.score >= self.stop_threshold)
            result.score = result.score * going_on
            steps.append(result)
            if not going_on.any():
                break
        return self._sequence(steps)

    def _instances(
        self, sequence: BoxSequence, index: int, extra: ExtraMaps, original_size: tuple[int, int]
    ) -> Instances:
        assert isinstance(sequence, MaskSequence)
        foreground = None if extra.foreground is None else extra.foreground[index]
        return self.postprocessor(sequence.masks[index], sequence.scores[index], foreground, original_size)
