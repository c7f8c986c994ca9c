"""What goes into a step and what comes out of it.

Shapes: `B` images, `n` boxes that a step looks at (of all images together; one per image in the paper's model), `C`
channels, `h, w` map on which the next place is chosen, `H, W` network input, `F_h, F_w` patch. Coordinates are (y, x)
in pixels of the network input, where the centre of pixel i is i.
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
    if dataclasses.is_dataclass(value):
        fields = {field.name: select(getattr(value, field.name), index) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)  # type: ignore[return-value, type-var]
    return value


def stack_steps(steps: Sequence[_Container]) -> _Container:
    """Stack a container's tensors (also in nested containers) over time: [B, ...] of every step -> [B, T, ...].

    A field that is None in the first step is None in the result.
    """
    first: Any = steps[0]
    if first is None:
        return steps[0]
    if isinstance(first, Tensor):
        return torch.stack(steps, dim=1)  # type: ignore[arg-type, return-value]
    names = [field.name for field in dataclasses.fields(first)]
    return type(first)(**{name: stack_steps([getattr(step, name) for step in steps]) for name in names})


@dataclass
class ExtraMaps:
    """What a preprocessor adds to the image, once for all steps.

    Attributes:
        angle: [B, 8, H, W] probabilities of the angle bins (d in the paper), or None.
        foreground: [B, K, H, W] probabilities of foreground or of the semantic classes, or None.
        features: learned maps of the image at fractions of its size, finest first, [B, C_i, H / s_i, W / s_i] each.
    """

    angle: Tensor | None = None
    foreground: Tensor | None = None
    features: tuple[Tensor, ...] = ()


@dataclass
class StepInputs:
    """What a step starts from.

    Attributes:
        image: [B, 3, H, W], normalised.
        memory: [B, H, W] in [0, 1], what was claimed before this step.
        extra: maps of the preprocessor.
        number: of the step, counted from 0.
    """

    image: Tensor
    memory: Tensor
    extra: ExtraMaps
    number: int = 0

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W), pixels."""
        height, width = self.image.shape[-2:]
        return height, width


@dataclass
class Scan:
    """What a step's look at the whole image gave; each model adds to it."""

    def heat(self) -> Tensor:
        """Where the proposer looked, [B, h, w] in [0, 1], to be drawn."""
        raise NotImplementedError


@dataclass
class Proposal:
    """Where a step wants to look; each model adds what its own parts need.

    Attributes:
        image: [n], which image of the batch each box belongs to, ascending.
        boxes: [n, 2] each.
        hidden: [n, S], what the stop scorer reads of the proposer.
    """

    image: Tensor
    boxes: CenterBoxes
    hidden: Tensor


@dataclass
class Where:
    """Boxes that a step looks at: the proposed ones, but for what training feeds it.

    Attributes:
        image: [n], which image of the batch.
        boxes: [n, 2] each.
    """

    image: Tensor
    boxes: CenterBoxes


@dataclass
class Cut:
    """What was cut out there.

    Attributes:
        mask: [n, H, W] in [0, 1], the soft mask in its place (in stage B the box as a soft map); None of the fast
            model, which pastes pixels where they are needed.
        patch: [n, C, F_h, F_w]; None in stage B, as the two after it.
        patch_mask: [n, F_h, F_w], output of the segmentation head: logits (fast), or a mask >= 0 (paper).
        features: [n, V, f_h, f_w], its deepest features.
    """

    mask: Tensor | None
    patch: Tensor | None = None
    patch_mask: Tensor | None = None
    features: Tensor | None = None


@dataclass
class Step:
    """One step; of the fast model one glance.

    Attributes:
        memory: [B, H, W], what was claimed before it.
        scan: what the look at the whole image gave.
        proposal: where it wanted to look.
        where: where it looked.
        cut: what it cut out.
        score: [n] in (0, 1), is there an object at each proposed box.
        class_probabilities: [n, classes], only of a model that scores classes; else None.
        claimed: [n] bool, which of the proposed boxes are objects; None before the step was remembered.
    """

    memory: Tensor
    scan: Any
    proposal: Any
    where: Where
    cut: Cut
    score: Tensor
    class_probabilities: Tensor | None = None
    claimed: Tensor | None = None

    def images_claimed(self) -> Tensor:
        """[B] bool, images of which the step claimed something."""
        assert self.claimed is not None
        none = torch.zeros(len(self.memory), dtype=torch.bool, device=self.claimed.device)
        return none.index_put((self.proposal.image[self.claimed],), torch.ones_like(none[:1]))

    def of_image(self, row: int) -> "Step":
        """The step of one image of the batch, as of a batch of one."""
        if len(self.memory) == 1:
            return self
        # Numbers rather than a mask, for which every tensor would wait for the device.
        own, rows = (self.proposal.image == row).nonzero()[:, 0], slice(row, row + 1)
        proposal, where = select(self.proposal, own), select(self.where, own)
        first = torch.zeros_like(own)
        return Step(
            memory=self.memory[rows],
            scan=select(self.scan, rows),
            proposal=dataclasses.replace(proposal, image=first),
            where=dataclasses.replace(where, image=first),
            cut=select(self.cut, own),
            score=self.score[own],
            class_probabilities=select(self.class_probabilities, own),
            claimed=select(self.claimed, own),
        )


class Feeder:
    """Decides what a step goes on with: here always the model's own predictions. Training may feed the truth."""

    def where(self, proposal: Any, inputs: StepInputs) -> Where:
        """Boxes to look at."""
        return Where(proposal.image, proposal.boxes)

    def claimed(self, mask: Tensor, inputs: StepInputs) -> Tensor:
        """What is written to memory, [n, H, W], for soft masks [n, H, W]."""
        return mask
