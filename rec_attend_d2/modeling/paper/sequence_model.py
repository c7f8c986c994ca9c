"""What stages B and C have in common: T steps of one box per image, matched with the true objects as a whole.

Shapes: `B` images, `T` steps, `H, W` network input.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ...config import check_keys_of_paper_model
from ...layers.conv_norm import remembered_folds
from ..rec_attend import RecurrentAttention
from ..registries import BOX_PROPOSER_REGISTRY, PAPER, look_up_part
from ..steps import Feeder, Step, StepInputs, stack_steps
from .attention import GaussianAttention
from .criterion import CriterionOutput
from .losses import weight_decay_loss
from .preprocessor import build_preprocessor
from .scheduled_sampling import ScheduledSampling
from .sequence import BoxProposal, GlimpseScan, StepSequence
from .statistics import training_statistics
from .targets import Targets

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class SequenceModel(RecurrentAttention):
    """Base of the paper's recurrent meta-architectures."""

    def __init__(
        self,
        *,
        box_proposer: nn.Module,
        attention: GaussianAttention,
        criterion: Callable[[StepSequence, Targets], CriterionOutput],
        scheduled_sampling: ScheduledSampling,
        time_steps: int,
        padding: tuple[float, float],
        weight_decay: float,
        **trunk: Any,
    ):
        """
        Args:
            box_proposer, attention, criterion, scheduled_sampling: the parts.
            time_steps: T.
            padding: of true boxes: each side moves out by max(first * size, second).
            weight_decay: factor of the weight decay term of the loss.
            trunk: arguments of :class:`RecurrentAttention`.
        """
        super().__init__(**trunk)
        self.box_proposer = box_proposer
        self.attention = attention
        self.criterion = criterion
        self.scheduled_sampling = scheduled_sampling
        self.time_steps = time_steps
        self.padding = padding
        self.weight_decay = weight_decay

    @classmethod
    def common_arguments(cls, cfg: CfgNode) -> dict:
        """Arguments of the constructor that do not differ between the stages."""
        node, key = cfg.MODEL.REC_ATTEND, "MODEL.REC_ATTEND"
        check_keys_of_paper_model(cfg)
        if node.TIME_STEPS < 1:
            raise ValueError(f"{key}.TIME_STEPS is {node.TIME_STEPS}; give at least 1.")
        proposer = look_up_part(BOX_PROPOSER_REGISTRY, node.BOX_PROPOSER.NAME, f"{key}.BOX_PROPOSER.NAME", PAPER)
        return {
            "preprocessor": build_preprocessor(cfg),
            "box_proposer": proposer(cfg),
            "attention": GaussianAttention(cfg),
            "time_steps": node.TIME_STEPS,
            "padding": (node.LOSS.BOX_PADDING_RATIO, node.LOSS.BOX_PADDING_PIXELS),
            "weight_decay": node.LOSS.WEIGHT_DECAY,
            "stop_threshold": node.TEST.SCORE_THRESHOLD,
            "max_steps": node.TIME_STEPS,
            "recompute": node.TRAINING.RECOMPUTE,
            "precision": node.TEST.AUTOCAST,
            **cls.image_arguments(cfg),
        }

    def look(self, inputs: StepInputs) -> tuple[BoxProposal, GlimpseScan]:
        """Glimpses at the map of the control CNN, and the box read after the last one."""
        return self.box_proposer(inputs)

    def remember(self, inputs: StepInputs, step: Step, feeder: Feeder) -> Tensor:
        """The pixel-wise maximum of the memory and what was claimed: ``c_t+1 = max(c_t, y_t)``.

        Every mask is written, whatever its score, as in the original: later steps are trained with it.
        """
        assert step.cut.mask is not None
        step.claimed = step.score.detach() >= self.stop_threshold
        return torch.maximum(inputs.memory, feeder.claimed(step.cut.mask.detach(), inputs))

    def unroll(
        self, inputs: StepInputs, steps: int, feeder: Feeder, stop: bool = False
    ) -> list[tuple[list[int], Step]]:
        """See :meth:`RecurrentAttention.unroll`; at inference the norms of all steps are folded once."""
        with remembered_folds():
            return super().unroll(inputs, steps, feeder, stop)

    def run_part(self, part: Callable[..., _Result], *arguments: Any) -> _Result:
        """See :meth:`RecurrentAttention.run_part`; only the glimpses' activations are computed again.

        Those of the mask head are a twentieth of the memory, and take as long (docs/speed.md).
        """
        return super().run_part(part, *arguments) if part == self.look else part(*arguments)

    @abstractmethod
    def feeder(self, targets: Targets) -> Feeder:
        """What feeds the truth of a batch to its steps."""

    def box_maps(self, steps: Step, image_size: tuple[int, int]) -> Tensor:
        """Soft boxes [B, T, H, W] of stacked steps."""
        return self.attention.box_maps(steps.proposal, image_size)

    def sequence(self, inputs: StepInputs, feeder: Feeder) -> StepSequence:
        """All T steps."""
        steps = stack_steps([step for _, step in self.unroll(inputs, self.time_steps, feeder)])
        return StepSequence(steps, self.box_maps(steps, inputs.image_size))

    def notes(self, steps: list[Step], entry: dict) -> tuple[str, ...]:
        """That the steps have run out, which is also logged: the last one still found an object."""
        claimed = steps[-1].claimed
        if len(steps) < self.time_steps or claimed is None or not claimed.any():
            return ()
        logger.warning(
            f"{entry.get('file_name', 'An image')} may have more objects than were found: the last of its "
            f"{self.time_steps} steps found one. MODEL.REC_ATTEND.TIME_STEPS is the number of steps."
        )
        return (f"stopped at {self.time_steps} steps",)

    def extract_targets(self, batched_inputs: list[dict]) -> Targets:
        """Targets of a training batch, on the model's device.

        Raises:
            ValueError: an entry without instances, or with instances of another size than the network's input.
        """
        for entry in batched_inputs:
            self.check_instances(entry)
        instances = [entry["instances"] for entry in batched_inputs]
        return Targets.from_instances(instances, self.time_steps, *self.padding).to(self.device)

    def compute_losses(self, sequence: StepSequence, targets: Targets) -> CriterionOutput:
        """The criterion's losses and the weight decay term, which together are the total loss."""
        output = self.criterion(sequence, targets)
        output.losses["loss_weight_decay"] = weight_decay_loss(self, self.weight_decay)
        return output

    def losses(self, batched_inputs: list[dict]) -> tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]:
        """See :meth:`RecurrentAttention.losses`."""
        inputs = self.first_inputs(batched_inputs)
        targets = self.extract_targets(batched_inputs)
        output = self.compute_losses(self.sequence(inputs, self.feeder(targets)), targets)
        return output.losses, partial(training_statistics, output)
