"""Stage B: the box proposer learns alone, with true masks in its memory (original code, ``box_model``).

Shapes: `B` images, `T` steps, `H, W` network input.
"""

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..layers.boxes import pixel_edges, unpadded_boxes
from .criterion import BoxCriterion
from .inputs import StepInputs
from .recurrent_model import RecurrentModel
from .scheduled_sampling import OwnPredictions, StepFeeder, TrueMemory
from .step_types import BoxSequence, BoxStep, ExtraMaps, select, stack_steps
from .stop_scorer import HiddenStateScorer
from .targets import Targets


@META_ARCH_REGISTRY.register()
class RecAttendBoxProposer(RecurrentModel):
    """Proposes boxes one after another; has no segmentation head.

    Its weights start the box proposer of :class:`RecAttend`; its own scorer is not used there.
    """

    @configurable
    def __init__(self, *, box_scorer: nn.Module, score_threshold: float, **common):
        """
        Args:
            box_scorer: from the proposer's last output to a score.
            score_threshold: boxes with a smaller score are no objects at inference.
            common: arguments of :class:`RecurrentModel`.
        """
        super().__init__(**common)
        self.box_scorer = box_scorer
        self.score_threshold = score_threshold

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        if cfg.MODEL.REC_ATTEND.BOX_PROPOSER.NAME == "DenseBoxProposer":
            raise ValueError(
                "Stage B trains the paper's proposer: MODEL.REC_ATTEND.BOX_PROPOSER.NAME 'DenseBoxProposer' needs no "
                "stage of its own. Train MODEL.META_ARCHITECTURE 'RecAttend' at once."
            )
        common = cls.common_arguments(cfg)
        return {
            **common,
            "criterion": BoxCriterion(cfg),
            "scheduled_sampling": TrueMemory(cfg),
            "box_scorer": HiddenStateScorer(cfg, common["box_proposer"].hidden_dim),
            "score_threshold": cfg.MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD,
        }

    def unroll(
        self, images: Tensor, extra_maps: ExtraMaps | None = None, targets: Targets | None = None
    ) -> BoxSequence:
        """Run all T steps and return every step's internals.

        Args:
            images: [B, 3, H, W], normalised as by :meth:`preprocess_image`.
            extra_maps: angle and foreground maps, where the config uses them.
            targets: true instances: each step's memory takes the one that its box overlaps most. Without them the
                memory takes the predicted box maps, a coarse stand-in for the masks that stage B does not predict.
        """
        extra = extra_maps or ExtraMaps()
        feeder: StepFeeder = OwnPredictions()
        if targets is not None:
            feeder = self.scheduled_sampling.start(targets, self.attention)
        memory = self.memory.initial(images)
        steps = []
        for step in range(self.time_steps):
            inputs = StepInputs(images, memory, extra)
            proposal = self.run_part(self.box_proposer, inputs, step)
            feeder.boxes(proposal, step)
            score, class_probabilities = self.box_scorer(proposal.hidden)
            box_map = self.attention.box_maps(stack_steps([proposal]), inputs.image_size)[:, 0]
            steps.append(BoxStep(proposal, score, class_probabilities, memory, box_map))
            memory = self.memory.update(memory, feeder.claimed(box_map, step), extra)
        stacked = stack_steps(steps)
        return BoxSequence(
            proposals=stacked.proposal,
            scores=stacked.score,
            class_probabilities=stacked.class_probabilities,
            memories=stacked.memory,
            box_maps=stacked.box_map,
        )

    def _inferred_sequences(self, images: Tensor, extra: ExtraMaps) -> list[BoxSequence]:
        sequence = self.unroll(images, extra)
        return [select(sequence, slice(index, index + 1)) for index in range(len(images))]

    def _infer(self, images: Tensor, extra: ExtraMaps) -> list[BoxSequence]:
        return [select(sequence, 0) for sequence in self._inferred_sequences(images, extra)]

    def _instances(self, found: BoxSequence, index: int, extra: ExtraMaps, entry: dict) -> Instances:
        original_size = self.original_size(entry)
        scores = found.scores.float()
        keep = scores >= self.score_threshold
        # The proposer learns padded boxes; an object's own box is what a user of the instances expects.
        tight = unpadded_boxes(found.proposals.boxes, self.padding_ratio, self.padding_pixels)
        boxes = Boxes(pixel_edges(tight).xyxy()[keep].float())
        boxes.scale(original_size[1] / self.image_size[1], original_size[0] / self.image_size[0])
        boxes.clip(original_size)
        result = Instances(original_size, pred_boxes=boxes, scores=scores[keep])
        result.pred_classes = result.scores.new_zeros(len(result), dtype=int)
        return result[boxes.nonempty()]  # a box outside the image is clipped to nothing
