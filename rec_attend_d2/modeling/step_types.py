"""Typed containers for one step and for the whole sequence.

Shapes: `B` images, `T` steps, `N` instances, `C` channels, `D` LSTM size, `K` glimpses, `h, w` control CNN's map,
`H, W` network input, `F_h, F_w` patch. Coordinates are (y, x) in pixels of the network input unless said otherwise.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..layers.boxes import CenterBoxes

_Container = TypeVar("_Container")


def select(container: _Container, index: Any) -> _Container:
    """Index the first axis of a container's tensors (also in nested containers and tuples); the rest stays."""
    value: Any = container
    if isinstance(value, Tensor):
        return value[index]  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(select(item, index) for item in value)  # type: ignore[return-value]
    if hasattr(value, "__dataclass_fields__"):
        return type(value)(**{name: select(getattr(value, name), index) for name in value.__dataclass_fields__})
    return value


def stack_steps(steps: Sequence[_Container]) -> _Container:
    """Stack a container's tensors (also in nested containers) over time: [B, ...] of every step -> [B, T, ...].

    A field that is None in the first step is None in the result.
    """
    first = steps[0]
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(first):  # type: ignore[arg-type]
        values = [getattr(step, field.name) for step in steps]
        if values[0] is None:
            fields[field.name] = None
        elif isinstance(values[0], Tensor):
            fields[field.name] = torch.stack(values, dim=1)
        else:
            fields[field.name] = stack_steps(values)
    return type(first)(**fields)


@dataclass
class ExtraMaps:
    """What a preprocessor adds to the image.

    Attributes:
        angle: [B, 8, H, W] probabilities of the angle bins (d in the paper), or None.
        foreground: [B, K, H, W] probabilities of foreground or of the semantic classes, or None.
        features: learned maps of the image at fractions of its size, finest first, [B, C_i, H / s_i, W / s_i] each.
    """

    angle: Tensor | None = None
    foreground: Tensor | None = None
    features: tuple[Tensor, ...] = ()


@dataclass
class Places:
    """The cells of the control CNN's map as places where the next object may be.

    Attributes:
        logits: [B, h, w], where to look next; their softmax over all cells is a distribution.
        boxes: the box read at every cell, [B, h * w, 2] each; None of a proposer that reads one box only.
    """

    logits: Tensor
    boxes: CenterBoxes | None


@dataclass
class Proposal:
    """A proposed box and how to look at it. Shapes for one step; a sequence has [B, T, ...].

    Attributes:
        boxes: centre and size, [B, 2] each.
        center_normalized: [B, 2], centre in [-1, 1] (not clipped).
        log_size: [B, 2], log of the size relative to the image.
        learned_log_variance: [B, 2], the filters' log variance if it is learned.
        learned_patch_log_gain, learned_mask_log_gain: [B], log gains of extracting and pasting if they are learned.
        box_map_log_gain: [B], log gain of the box map.
        hidden: [B, D], last output of the proposer, which the stop scorer reads.
        glimpse_maps: [B, K, h, w], where the proposer looked; each sums to 1.
        places: the scored places it chose from; None of a proposer that scores none.
    """

    boxes: CenterBoxes
    center_normalized: Tensor
    log_size: Tensor
    learned_log_variance: Tensor
    learned_patch_log_gain: Tensor
    learned_mask_log_gain: Tensor
    box_map_log_gain: Tensor
    hidden: Tensor
    glimpse_maps: Tensor
    places: Places | None = None


@dataclass
class BoxStep:
    """One step of box proposing (stage B).

    Attributes:
        proposal: the proposed box.
        score: [B] in (0, 1), is there an object.
        class_probabilities: [B, classes], only of a scorer that has classes; else None.
        memory: [B, H, W], what was claimed before this step.
        box_map: [B, H, W] in (0, 1), soft box.
    """

    proposal: Proposal
    score: Tensor
    class_probabilities: Tensor | None
    memory: Tensor
    box_map: Tensor


@dataclass
class MaskStep:
    """One step of the full model.

    Attributes:
        proposal: the proposed box.
        used_boxes: boxes the patch was cut at: the proposed, or true ones under scheduled sampling.
        patch: [B, C, F_h, F_w].
        patch_mask: [B, F_h, F_w], output of the segmentation head: logits, or a mask >= 0.
        mask: [B, H, W] in (0, 1), soft mask.
        score: [B] in (0, 1), is there an object.
        class_probabilities: [B, classes], only of a model that scores classes; else None.
        memory: [B, H, W], what was claimed before this step.
    """

    proposal: Proposal
    used_boxes: CenterBoxes
    patch: Tensor
    patch_mask: Tensor
    mask: Tensor
    score: Tensor
    class_probabilities: Tensor | None
    memory: Tensor


@dataclass
class BoxSequence:
    """All steps of stage B; every tensor has the steps as its second axis, [B, T, ...].

    Attributes:
        proposals: the proposals, [B, T, ...].
        scores: [B, T].
        class_probabilities: [B, T, classes] or None.
        memories: [B, T, H, W], memory before each step.
        box_maps: [B, T, H, W] soft boxes in (0, 1).
    """

    proposals: Proposal
    scores: Tensor
    class_probabilities: Tensor | None
    memories: Tensor
    box_maps: Tensor

    @property
    def centers(self) -> Tensor:
        """[B, T, 2], (y, x), pixels."""
        return self.proposals.boxes.center

    @property
    def sizes(self) -> Tensor:
        """[B, T, 2], (height, width), pixels."""
        return self.proposals.boxes.size

    @property
    def glimpse_maps(self) -> Tensor:
        """[B, T, K, h, w]"""
        return self.proposals.glimpse_maps


@dataclass
class MaskSequence(BoxSequence):
    """All steps of the full model.

    Attributes:
        masks: [B, T, H, W] soft masks in (0, 1), not multiplied by the score.
        patches: [B, T, C, F_h, F_w].
        patch_masks: [B, T, F_h, F_w]; logits of a head that gives logits, else >= 0.
        used_boxes: boxes the patches were cut at, [B, T, 2] each.
    """

    masks: Tensor
    patches: Tensor
    patch_masks: Tensor
    used_boxes: CenterBoxes
