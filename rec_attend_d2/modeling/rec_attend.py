"""The full model: box, cut out, remember, decide whether to go on (paper, section 3.1).

Shapes: `B` images, `T` steps, `H, W` network input.
"""

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor, nn

from ..layers.boxes import CenterBoxes
from ..layers.conv_norm import remembered_folds
from .inference import Found, take_steps
from .inputs import StepInputs
from .postprocessing import build_postprocessor
from .recurrent_model import RecurrentModel
from .scheduled_sampling import OwnPredictions, ScheduledSampling, StepFeeder
from .segmentation_head import build_segmentation_head
from .semantic_files import SemanticFiles, build_semantic_files
from .step_criterion import StepCriterion
from .step_types import BoxSequence, ExtraMaps, MaskSequence, MaskStep, Proposal, stack_steps
from .stop_scorer import build_stop_scorer
from .targets import Targets
from .training_modes import training_mode_class


def _check_parts(cfg: CfgNode, segmentation_head: Any, attention: Any) -> None:
    """Raise a ValueError unless the segmentation head gives what the attention pastes and the losses compare."""
    node = cfg.MODEL.REC_ATTEND
    if segmentation_head.gives_logits != attention.takes_logits:
        raise ValueError(
            f"MODEL.REC_ATTEND.SEGMENTATION_HEAD.NAME '{node.SEGMENTATION_HEAD.NAME}' and ATTENTION.NAME "
            f"'{node.ATTENTION.NAME}' do not fit: ResidualPatchHead goes with BilinearAttention (logits), "
            "PatchConvDeconvHead with GaussianAttention (a gain and a bias)."
        )
    on_patch = [name for name in node.LOSS.STEP_MASK if name.startswith("patch_")]
    if training_mode_class(cfg).criterion_class is StepCriterion and on_patch and not attention.takes_logits:
        raise ValueError(
            f"MODEL.REC_ATTEND.LOSS.STEP_MASK names {on_patch}, which need logits, but SEGMENTATION_HEAD.NAME "
            f"'{node.SEGMENTATION_HEAD.NAME}' gives none. Set it to ['image_iou'], or choose ResidualPatchHead."
        )


def _max_steps(cfg: CfgNode) -> int:
    """Largest number of steps at inference."""
    node = cfg.MODEL.REC_ATTEND
    if node.TEST.MAX_STEPS < 0:
        raise ValueError(f"MODEL.REC_ATTEND.TEST.MAX_STEPS is {node.TEST.MAX_STEPS}; give 0 or more.")
    if node.NORM == "per_step" and node.TEST.MAX_STEPS > node.TIME_STEPS:
        raise ValueError(
            f"MODEL.REC_ATTEND.TEST.MAX_STEPS is {node.TEST.MAX_STEPS}, but with NORM 'per_step' there are statistics "
            f"for TIME_STEPS = {node.TIME_STEPS} steps only. Lower it, or set NORM to 'shared' or 'group'."
        )
    return node.TEST.MAX_STEPS or node.TIME_STEPS


@META_ARCH_REGISTRY.register()
class RecAttend(RecurrentModel):
    """Recurrent-attention instance segmentation, trained in stage C."""

    @configurable
    def __init__(
        self,
        *,
        segmentation_head: nn.Module,
        stop_scorer: nn.Module,
        class_scorer: Any,
        postprocessor,
        semantic_files: SemanticFiles | None,
        mask_inputs: list[str],
        training_mode: Any,
        stop_early: bool,
        stop_threshold: float,
        max_steps: int,
        compile_steps: bool,
        **common,
    ):
        """
        Args:
            segmentation_head, stop_scorer, postprocessor: the parts.
            class_scorer: gives objects their class; None where there is one kind, or semantic maps tell.
            semantic_files: a semantic segmentation made elsewhere; None = the preprocessor's, if it makes one.
            mask_inputs: maps that the patch is cut from.
            training_mode: how training goes through the steps.
            stop_early: at inference stop at the first score below ``stop_threshold`` instead of running all steps.
            max_steps: at inference the largest number of steps.
            compile_steps: run them compiled by torch.compile at inference.
            common: arguments of :class:`RecurrentModel`.
        """
        super().__init__(**common)
        self.segmentation_head = segmentation_head
        self.stop_scorer = stop_scorer
        self.class_scorer = class_scorer
        self.postprocessor = postprocessor
        self.semantic_files = semantic_files
        self.mask_inputs = mask_inputs
        self.training_mode = training_mode
        self.stop_early = stop_early
        self.stop_threshold = stop_threshold
        self.max_steps = max_steps
        self.compile_steps = compile_steps

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND
        segmentation_head = build_segmentation_head(cfg)
        common = cls.common_arguments(cfg)
        mode = training_mode_class(cfg)
        _check_parts(cfg, segmentation_head, common["attention"])
        hidden_dim = common["box_proposer"].hidden_dim
        return {
            **common,
            "criterion": mode.criterion_class(cfg),
            "training_mode": mode(cfg),
            "scheduled_sampling": ScheduledSampling(cfg),
            "segmentation_head": segmentation_head,
            "stop_scorer": build_stop_scorer(cfg, hidden_dim, segmentation_head.feature_shape),
            "class_scorer": None,
            "postprocessor": build_postprocessor(cfg),
            "semantic_files": build_semantic_files(cfg),
            "mask_inputs": list(node.SEGMENTATION_HEAD.INPUTS),
            "stop_early": node.TEST.STOP_EARLY,
            "stop_threshold": node.TEST.SCORE_THRESHOLD,
            "max_steps": _max_steps(cfg),
            "compile_steps": node.TEST.COMPILE,
        }

    def _slots(self, instances: list[Instances]) -> int:
        if isinstance(self.criterion, StepCriterion):
            return max([1, *map(len, instances)])  # single steps are matched with nothing
        return super()._slots(instances)

    def extract_targets(self, batched_inputs: list[dict]) -> Targets:
        """Targets of a training batch, on the model's device.

        Raises:
            ValueError: as :meth:`RecurrentModel.extract_targets`; an object of a class that the class scorer lacks.
        """
        targets = super().extract_targets(batched_inputs)
        if self.class_scorer is not None:
            for entry in batched_inputs:
                largest = max(entry["instances"].gt_classes.tolist(), default=0)
                if largest >= self.class_scorer.classes:
                    raise ValueError(
                        f"{entry.get('file_name', 'An image')} has an object of class {largest} (counted from 0), but "
                        f"MODEL.REC_ATTEND.NUM_CLASSES is {self.class_scorer.classes}."
                    )
        return targets

    def class_probabilities(self, features: Tensor) -> Tensor | None:
        """[n, classes] for the head's deepest features [n, V, f_h, f_w]; None of a model that scores no classes."""
        return None if self.class_scorer is None else self.class_scorer(features)

    def _segment(
        self, inputs: StepInputs, boxes: CenterBoxes, proposal: Proposal, step: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The patch at ``boxes``, its mask, the deepest features and the mask in its place, see :class:`MaskStep`."""
        window = self.attention.window(boxes, proposal, inputs.image_size)
        patch = self.attention.cut(inputs, self.mask_inputs, window)
        patch_mask, features = self.segmentation_head(patch, step)
        return patch, patch_mask, features, self.attention.paste(patch_mask, window)

    def take_step(self, inputs: StepInputs, step: int, feeder: StepFeeder | None = None) -> MaskStep:
        """One time step, counted from 0; ``feeder`` chooses the boxes to cut out, by default the proposed ones."""
        proposal = self.run_part(self.box_proposer, inputs, step)
        boxes = proposal.boxes if feeder is None else feeder.boxes(proposal, step)
        patch, patch_mask, features, pasted = self.run_part(self._segment, inputs, boxes, proposal, step)
        claimed = self.memory.claimed(inputs.memory)
        mask = self.memory.visible(pasted, claimed)
        score = self.stop_scorer(proposal.hidden, features)
        return MaskStep(proposal, boxes, patch, patch_mask, mask, score, self.class_probabilities(features), claimed)

    def _sequence(self, steps: list[MaskStep]) -> MaskSequence:
        stacked = stack_steps(steps)
        height, width = stacked.mask.shape[-2:]
        return MaskSequence(
            proposals=stacked.proposal,
            scores=stacked.score,
            class_probabilities=stacked.class_probabilities,
            memories=stacked.memory,
            box_maps=self.attention.box_maps(stacked.proposal, (height, width)),
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
        inputs = StepInputs(images, self.memory.initial(images), extra)
        steps = []
        with remembered_folds():
            for step in range(self.time_steps):
                result = self.take_step(inputs, step, feeder)
                steps.append(result)
                memory = self.memory.update(inputs.memory, feeder.claimed(result.mask, step), extra)
                inputs = StepInputs(images, memory, extra)
        return self._sequence(steps)

    def _train(
        self, batched_inputs: list[dict], images: Tensor, extra: ExtraMaps, targets: Targets
    ) -> tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]:
        return self.training_mode(self, batched_inputs, images, extra, targets)

    def _infer(self, images: Tensor, extra: ExtraMaps) -> list[Found]:
        return [Found.of(steps) for steps in take_steps(self, images, extra)]

    def _inferred_sequences(self, images: Tensor, extra: ExtraMaps) -> list[BoxSequence]:
        return [self._sequence(steps) for steps in take_steps(self, images, extra)]

    def _foreground(self, extra: ExtraMaps, index: int, entry: dict) -> Tensor | None:
        """Foreground or semantic maps [K, ., .] of image ``index``: those given as files, else the preprocessor's."""
        if self.semantic_files is not None:
            return self.semantic_files.read(entry["file_name"], self.original_size(entry))
        return None if extra.foreground is None else extra.foreground[index]

    def _instances(self, found: Found, index: int, extra: ExtraMaps, entry: dict) -> Instances:
        original_size, foreground = self.original_size(entry), self._foreground(extra, index, entry)
        return self.postprocessor(found.masks, found.scores, foreground, original_size, found.class_probabilities)
