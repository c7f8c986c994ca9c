"""What stage B and the full model have in common: from a batch of dataset dicts to losses or instances.

Shapes: `B` images, `T` steps, `H, W` network input.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import Tensor, nn

from ..layers.recomputation import recomputed
from .attention import Attention, BilinearAttention, build_attention
from .box_proposer import build_box_proposer
from .criterion import CriterionOutput
from .image_model import ImageModel
from .inference import autocast
from .losses import weight_decay_loss
from .memory import MaxMemory, build_memory
from .preprocessor import build_preprocessor
from .scheduled_sampling import ScheduledSampling
from .statistics import training_statistics
from .step_types import BoxSequence, ExtraMaps
from .targets import Targets
from .training_modes import trains_whole_sequences

_Result = TypeVar("_Result")


class RecurrentModel(ImageModel, ABC):
    """Base of the meta-architectures: it orchestrates, its parts do the work."""

    def __init__(
        self,
        *,
        preprocessor: nn.Module,
        memory: MaxMemory,
        box_proposer: nn.Module,
        attention: Attention,
        criterion: Any,
        scheduled_sampling: ScheduledSampling,
        time_steps: int,
        padding_ratio: float,
        padding_pixels: float,
        weight_decay: float,
        recompute: bool,
        precision: str,
        **image_arguments: Any,
    ):
        """
        Args:
            preprocessor, memory, box_proposer, attention, criterion, scheduled_sampling: the parts.
            time_steps: T.
            padding_ratio, padding_pixels: of true boxes.
            weight_decay: factor of the weight decay term of the loss.
            recompute: in training keep no activations of a step's networks, see :meth:`run_part`.
            precision: of the networks at inference, see :func:`.inference.autocast`.
            image_arguments: of :class:`.image_model.ImageModel`.
        """
        super().__init__(**image_arguments)
        self.preprocessor = preprocessor
        self.memory = memory
        self.box_proposer = box_proposer
        self.attention = attention
        self.criterion = criterion
        self.scheduled_sampling = scheduled_sampling
        self.time_steps = time_steps
        self.padding_ratio = padding_ratio
        self.padding_pixels = padding_pixels
        self.weight_decay = weight_decay
        self.recompute = recompute
        self.precision = precision

    @staticmethod
    def common_arguments(cfg: CfgNode) -> dict:
        """Arguments of the constructor that do not differ between the meta-architectures."""
        node = cfg.MODEL.REC_ATTEND
        if node.TIME_STEPS < 1:
            raise ValueError(f"MODEL.REC_ATTEND.TIME_STEPS is {node.TIME_STEPS}; give at least 1.")
        attention = build_attention(cfg)
        if (
            isinstance(attention, BilinearAttention)
            and node.LOSS.BOX not in ("mse", "huber")
            and trains_whole_sequences(cfg)
        ):
            raise ValueError(
                f"MODEL.REC_ATTEND.LOSS.BOX '{node.LOSS.BOX}' learns from soft box maps, which BilinearAttention does "
                "not make. Set it to 'huber' or 'mse', or MODEL.REC_ATTEND.TRAINING.MODE to one of single steps."
            )
        return {
            "preprocessor": build_preprocessor(cfg),
            "memory": build_memory(cfg),
            "box_proposer": build_box_proposer(cfg),
            "attention": attention,
            "time_steps": node.TIME_STEPS,
            "padding_ratio": node.LOSS.BOX_PADDING_RATIO,
            "padding_pixels": node.LOSS.BOX_PADDING_PIXELS,
            "weight_decay": node.LOSS.WEIGHT_DECAY,
            "recompute": node.TRAINING.RECOMPUTE,
            "precision": node.TEST.AUTOCAST,
            **RecurrentModel.image_arguments(cfg),
        }

    def run_part(self, part: Callable[..., _Result], *arguments: Any) -> _Result:
        """``part(*arguments)``, one of a step's networks; see TRAINING.RECOMPUTE."""
        if self.recompute and self.training and torch.is_grad_enabled():
            return recomputed(part, *arguments)
        return part(*arguments)

    def _slots(self, instances: list[Instances]) -> int:
        """Instance slots N of a batch's targets: a whole sequence is matched with as many as it has steps."""
        return self.time_steps

    def extract_targets(self, batched_inputs: list[dict]) -> Targets:
        """Targets of a training batch, on the model's device.

        Raises:
            ValueError: an entry without instances, or with instances of another size than the network's input.
        """
        for entry in batched_inputs:
            if "instances" not in entry:
                raise ValueError(
                    f"{entry.get('file_name', 'An image')} has no 'instances', which training needs: its data set "
                    "has no annotations, or the mapper left them out."
                )
            self._check_size(entry, "instances of an image of size", entry["instances"].image_size)
        instances = [entry["instances"] for entry in batched_inputs]
        targets = Targets.from_instances(instances, self._slots(instances), self.padding_ratio, self.padding_pixels)
        return targets.to(self.device)

    @abstractmethod
    def unroll(self, images: Tensor, extra_maps: ExtraMaps | None = None, targets: Targets | None = None):
        """All T steps; see the meta-architectures."""

    def unroll_inputs(self, batched_inputs: list[dict]) -> BoxSequence:
        """:meth:`unroll` of a batch of dataset dicts, as :meth:`forward` takes them, without truth."""
        images = self.preprocess_image(batched_inputs)
        return self.unroll(images, self.preprocessor(images, batched_inputs))

    def infer_inputs(self, batched_inputs: list[dict]) -> list[BoxSequence]:
        """The steps that :meth:`forward` takes at inference for a batch of dataset dicts, and makes instances of.

        Returns:
            One sequence per image, as of a batch of one. Where the model stops early it ends with the low score.
        """
        with autocast(self.device, self.precision):
            images = self.preprocess_image(batched_inputs)
            return self._inferred_sequences(images, self.preprocessor(images, batched_inputs))

    @abstractmethod
    def _inferred_sequences(self, images: Tensor, extra: ExtraMaps) -> list[BoxSequence]:
        """See :meth:`infer_inputs`."""

    @abstractmethod
    def _infer(self, images: Tensor, extra: ExtraMaps) -> list[Any]:
        """What the steps found, image by image."""

    @abstractmethod
    def _instances(self, found: Any, index: int, extra: ExtraMaps, entry: dict) -> Instances:
        """What was found in image ``index`` of the batch, whose dataset dict is ``entry``, at its original size."""

    def compute_losses(self, sequence: BoxSequence, targets: Targets) -> CriterionOutput:
        """The criterion's losses and the weight decay term, which together are the total loss."""
        output = self.criterion(sequence, targets)
        output.losses["loss_weight_decay"] = weight_decay_loss(self, self.weight_decay)
        return output

    def _detect(self, batched_inputs: list[dict]) -> list[dict]:
        with autocast(self.device, self.precision):
            images = self.preprocess_image(batched_inputs)
            extra = self.preprocessor(images, batched_inputs)
            results = self._infer(images, extra)
        pairs = enumerate(zip(results, batched_inputs, strict=True))
        return [{"instances": self._instances(found, index, extra, entry)} for index, (found, entry) in pairs]

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training, instances otherwise.

        Args:
            batched_inputs: dataset dicts of RecAttendDatasetMapper: ``image`` uint8 [3, H, W] BGR, ``height`` and
                ``width`` of the original image, ``instances`` in training, and the maps that a preprocessor wants.

        Returns:
            In training scalar losses by name; else one ``{"instances": Instances}`` per image, at its original size.
        """
        if not self.training:
            return self._detect(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        extra = self.preprocessor(images, batched_inputs)
        targets = self.extract_targets(batched_inputs)
        losses, statistics = self._train(batched_inputs, images, extra, targets)
        self._log_statistics(statistics)
        return losses

    def _train(
        self, batched_inputs: list[dict], images: Tensor, extra: ExtraMaps, targets: Targets
    ) -> tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]:
        """Losses of a batch by name, and a function that computes its statistics."""
        output = self.compute_losses(self.unroll(images, extra, targets), targets)
        return output.losses, partial(training_statistics, output)
