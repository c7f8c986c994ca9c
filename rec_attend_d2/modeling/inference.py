"""Inference of the full model: step after step until each image's stop score says so.

Shapes: `B` images, `H, W` network input, `t` steps of one image.
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..layers.conv_norm import remembered_folds
from .inputs import StepInputs
from .step_types import ExtraMaps, MaskStep, select

if TYPE_CHECKING:
    from .rec_attend import RecAttend


@dataclass
class Found:
    """What an image's steps found.

    Attributes:
        masks: [t, H, W] soft masks in (0, 1), not multiplied by the score.
        scores: [t].
        class_probabilities: [t, classes], only of a model that scores classes; else None.
    """

    masks: Tensor
    scores: Tensor
    class_probabilities: Tensor | None

    @classmethod
    def of(cls, steps: list[MaskStep]) -> "Found":
        """The results of one image's steps, each given as that of a batch of one."""
        probabilities = [step.class_probabilities for step in steps if step.class_probabilities is not None]
        return cls(
            masks=torch.cat([step.mask for step in steps]),
            scores=torch.cat([step.score for step in steps]),
            class_probabilities=torch.cat(probabilities) if probabilities else None,
        )


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


@cache
def _compiled(take_step: Callable[..., MaskStep]) -> Callable[..., MaskStep]:
    """Once for all models of a class: a model's own compiled method would still be the original's in a copy of it."""
    return torch.compile(take_step)


def take_steps(model: "RecAttend", images: Tensor, extra: ExtraMaps) -> list[list[MaskStep]]:
    """Run the model on ``images`` [B, 3, H, W] with its own predictions.

    With ``model.stop_early`` an image is done at its first score below ``model.stop_threshold``, as in the paper, and
    leaves the batch; that step, which is no object, is its last one. Otherwise all ``model.max_steps`` steps are run.

    Returns:
        For every image its steps, each as that of a batch of one.
    """
    inputs = StepInputs(images, model.memory.initial(images), extra)
    going = list(range(len(images)))
    steps: list[list[MaskStep]] = [[] for _ in going]
    take_step = partial(_compiled(type(model).take_step), model) if model.compile_steps else model.take_step
    with remembered_folds():
        for number in range(model.max_steps):
            result = take_step(inputs, number)
            for row, image in enumerate(going):
                steps[image].append(select(result, slice(row, row + 1)))
            # The one place where the loop waits for the device.
            goes_on = (result.score >= model.stop_threshold).tolist() if model.stop_early else [True] * len(going)
            if not any(goes_on):
                break
            inputs = dataclasses.replace(inputs, memory=model.memory.update(inputs.memory, result.mask, inputs.extra))
            if not all(goes_on):
                rows = [row for row, on in enumerate(goes_on) if on]
                inputs = inputs.select(torch.tensor(rows, device=images.device))
                going = [going[row] for row in rows]
    return steps
