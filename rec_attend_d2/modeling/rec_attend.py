"""The recurrence: look, box, cut out, decide, remember (paper, section 3.1). Read this first.

Two models stand on it: the paper's (:mod:`.paper`), which looks at one object per step, and the fast one
(:mod:`.fast`), which claims everything that stands apart in one glance. They differ in what they look with, not in how
they go on. Training, inference, pictures and export all run :meth:`RecurrentAttention.step`, and all but two run it in
:meth:`RecurrentAttention.unroll`: the fast model's training takes single glances, and exported graphs have no lists of
images.

Shapes: `B` images, `n` boxes of all images together, `H, W` network input.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..layers.recomputation import recomputed
from .image_model import ImageModel
from .steps import Cut, ExtraMaps, Feeder, Scan, Step, StepInputs, Where, select

_Result = TypeVar("_Result")


class RecurrentAttention(ImageModel, ABC):
    """Base of the meta-architectures that go on until nothing is left. It orchestrates, its parts do the work."""

    # What a step is called in pictures.
    step_name = "step"

    def __init__(
        self,
        *,
        preprocessor: nn.Module,
        stop_early: bool,
        stop_threshold: float,
        max_steps: int,
        recompute: bool,
        precision: str,
        **image_arguments: Any,
    ):
        """
        Args:
            preprocessor: makes the maps of an image that all its steps see.
            stop_early: at inference an image is done after its first step that claims nothing; else it runs all steps.
            stop_threshold: smallest score of what is claimed.
            max_steps: at inference the largest number of steps.
            recompute: in training keep no activations of a step's networks, see :meth:`run_part`.
            precision: of the networks at inference, see :func:`autocast`.
            image_arguments: of :class:`.image_model.ImageModel`.
        """
        super().__init__(**image_arguments)
        self.preprocessor = preprocessor
        self.stop_early = stop_early
        self.stop_threshold = stop_threshold
        self.max_steps = max_steps
        self.recompute = recompute
        self.precision = precision

    # What a model does in a step.

    @abstractmethod
    def look(self, inputs: StepInputs) -> tuple[Any, Scan]:
        """Look at the image beside the memory: where something is unclaimed, and boxes around it (a Proposal)."""

    @abstractmethod
    def cut_out(self, inputs: StepInputs, proposal: Any, where: Where) -> Cut:
        """Cut out the object in each box."""

    @abstractmethod
    def decide(self, proposal: Any, cut: Cut) -> tuple[Tensor, Tensor | None]:
        """Is there an object: scores [n] in (0, 1) of the proposals, and class probabilities [n, classes] or None."""

    @abstractmethod
    def remember(self, inputs: StepInputs, step: Step, feeder: Feeder) -> Tensor:
        """Note in the step what it claimed, and return the memory [B, H, W] after it. No gradient flows through it."""

    # How all of them go on.

    def step(self, inputs: StepInputs, feeder: Feeder) -> Step:
        """One step: look, box, cut out, decide."""
        proposal, scan = self.run_part(self.look, inputs)
        where = feeder.where(proposal, inputs)
        cut = self.run_part(self.cut_out, inputs, proposal, where)
        score, class_probabilities = self.decide(proposal, cut)
        return Step(inputs.memory, scan, proposal, where, cut, score, class_probabilities)

    def unroll(
        self, inputs: StepInputs, steps: int, feeder: Feeder, stop: bool = False
    ) -> list[tuple[list[int], Step]]:
        """Step after step, each remembering the ones before it.

        Args:
            inputs: of the first step.
            steps: how many at most.
            feeder: what a step goes on with.
            stop: an image leaves the batch after its first step that claims nothing.

        Returns:
            Each step, with the numbers of the images that took it.
        """
        images = list(range(len(inputs.image)))
        taken: list[tuple[list[int], Step]] = []
        while images and len(taken) < steps:
            step = self.step(inputs, feeder)
            taken.append((images, step))
            memory = self.remember(inputs, step, feeder)
            inputs = dataclasses.replace(inputs, memory=memory, number=inputs.number + 1)
            if stop:
                rows = step.images_claimed().nonzero()[:, 0]
                if len(rows) < len(images):
                    images, inputs = [images[row] for row in rows.tolist()], select(inputs, rows)
        return taken

    def run_part(self, part: Callable[..., _Result], *arguments: Any) -> _Result:
        """``part(*arguments)``, one of a step's networks; see TRAINING.RECOMPUTE."""
        if self.recompute and self.training and torch.is_grad_enabled():
            return recomputed(part, *arguments)
        return part(*arguments)

    # From dataset dicts to instances.

    def first_inputs(self, batched_inputs: list[dict]) -> StepInputs:
        """What the first step of a batch of dataset dicts starts from: images, their maps and an empty memory."""
        images = self.preprocess_image(batched_inputs)
        memory = images.new_zeros(len(images), *images.shape[2:])
        return StepInputs(images, memory, self.preprocessor(images, batched_inputs))

    def run(self, batched_inputs: list[dict], memory: Tensor | None = None) -> tuple[list[list[Step]], ExtraMaps]:
        """Inference up to the last step, on images of one size.

        Args:
            batched_inputs: dataset dicts.
            memory: [B, H, W] in [0, 1], what counts as claimed from the start.

        Returns:
            Every image's steps, each as of a batch of one, and the batch's maps.
        """
        with autocast(self.device, self.precision):
            inputs = self.first_inputs(batched_inputs)
            if memory is not None:
                inputs.memory = torch.maximum(inputs.memory, memory)
            taken = self.unroll(inputs, self.max_steps, Feeder(), self.stop_early)
        steps: list[list[Step]] = [[] for _ in batched_inputs]
        for images, step in taken:
            for row, image in enumerate(images):
                steps[image].append(step.of_image(row))
        return steps, inputs.extra

    @abstractmethod
    def instances(self, steps: list[Step], extra: ExtraMaps, entry: dict) -> Instances:
        """What an image's steps (of :meth:`run`; or only the first of them) found, at its original size.

        Args:
            steps: as of a batch of one.
            extra: maps of this image, as of a batch of one.
            entry: its dataset dict.
        """

    def notes(self, steps: list[Step], entry: dict) -> tuple[str, ...]:
        """What a reader of the result has to know, in a few words each, such as that an image may have more objects."""
        return ()

    @abstractmethod
    def losses(self, batched_inputs: list[dict]) -> tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]:
        """Losses of a training batch by name, and a function that computes its statistics."""

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training, instances otherwise.

        Args:
            batched_inputs: dataset dicts of the mapper of :func:`rec_attend_d2.data.build_mapper`: ``image`` uint8
                [3, H, W] BGR, ``height`` and ``width`` of the original image, what is to be learned in training, and
                the maps that a preprocessor wants.

        Returns:
            In training scalar losses by name; else for each image ``instances``, at its original size, and ``notes``.
        """
        if self.training:
            losses, statistics = self.losses(batched_inputs)
            self._log_statistics(statistics)
            return losses
        return self.detect(batched_inputs)

    def detect(self, batched_inputs: list[dict]) -> list[dict]:
        """What is found in images; see :meth:`forward`."""
        found, extra = self.run(batched_inputs)
        rows = enumerate(zip(found, batched_inputs, strict=True))
        return [
            {
                "instances": self.instances(steps, select(extra, slice(row, row + 1)), entry),
                "notes": (*entry.get("notes", ()), *self.notes(steps, entry)),
            }
            for row, (steps, entry) in rows
        ]


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Where networks run in ``precision``, of TEST.AUTOCAST; "" changes nothing.

    Raises:
        ValueError: there is no such precision, or the device has none.
    """
    if not precision:
        return nullcontext()
    known = {"bfloat16": torch.bfloat16} | ({"float16": torch.float16} if device.type == "cuda" else {})
    if precision not in known:
        raise ValueError(
            f"MODEL.REC_ATTEND.TEST.AUTOCAST is '{precision}'; on {device.type} it can be one of {sorted(known)}, or "
            "'' for float32."
        )
    return torch.autocast(device.type, known[precision])
