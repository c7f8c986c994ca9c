"""A model with tensors in and tensors out, for a fixed number of steps or until no object is left.

The fast model is exported with one object per step (OBJECTS_PER_GLANCE 1), which finds the same objects: the number of
objects in a glance, and with it every shape, would depend on the image.

Shapes: `B` images, `T` steps, `K` classes, `H, W` network input (INPUT.IMAGE_SIZE).

Input of both modules: images [B, 3, H, W], float32, BGR, normalised by MODEL.PIXEL_MEAN and PIXEL_STD (with those of
this project's configs in [0, 1]), as :meth:`.ImageModel.preprocess_image` makes them. Outputs by name:

* ``masks`` [B, T, H, W], soft masks in [0, 1], not multiplied by the score;
* ``scores`` [B, T] in [0, 1], is there an object; of the fast model 0 where nothing was claimed;
* ``centers``, ``sizes`` [B, T, 2], boxes, (y, x) in pixels of the network input;
* ``class_probabilities`` [B, T, K], only of a model that scores classes;
* ``foreground`` [B, K, H, W], only of a model whose preprocessor makes such maps.
"""

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers.patches import paste_maps
from ..layers.step_norm import PerStepBatchNorm, SharedBatchNorm
from ..modeling import RecurrentAttention
from ..modeling.fast import FastRecAttend
from ..modeling.fast.claims import MASK_THRESHOLD
from ..modeling.fast.targets import CLAIMED_SHARE, CLAIMED_VALUE
from ..modeling.paper import RecAttend
from ..modeling.paper.preprocessor import GivenMaps
from ..modeling.steps import Feeder, Step, StepInputs
from .folded_norm import fold_norms


class ExportError(ValueError):
    """This model cannot be exported, or not in this way."""


class OneByOne(FastRecAttend):
    """The fast model with one object per step and whole maps, so that no shape depends on the image."""

    def remember(self, inputs: StepInputs, step: Step, feeder: Feeder) -> Tensor:
        """As :meth:`FastRecAttend.remember`, and the step's soft mask [B, H, W]."""
        assert step.cut.patch_mask is not None
        logits, inside = paste_maps(step.cut.patch_mask.float(), step.where.boxes, inputs.image_size)
        mask = step.cut.mask = torch.sigmoid(logits) * inside
        own = mask > MASK_THRESHOLD
        area, new = (pixels.sum((1, 2)) for pixels in (own, own & (inputs.memory <= CLAIMED_VALUE)))
        step.claimed = (step.score >= self.stop_threshold) & (new > (1 - CLAIMED_SHARE) * area)
        # A candidate that is not claimed comes again at every later step.
        step.score = step.score * step.claimed
        return torch.maximum(inputs.memory, mask * step.claimed[:, None, None])


def _check_steps(model: RecurrentAttention, steps: int) -> None:
    if steps < 1:
        raise ExportError(f"A graph of {steps} steps finds nothing; give at least 1.")
    for module in model.modules():
        if isinstance(module, PerStepBatchNorm) and not isinstance(module, SharedBatchNorm):
            # A preprocessor has one row, as it runs once.
            if 1 < len(module.weight) < steps:
                raise ExportError(
                    f"{steps} steps are asked for, but with MODEL.REC_ATTEND.NORM 'per_step' there are statistics for "
                    f"TIME_STEPS = {len(module.weight)} steps only. Give fewer --steps."
                )


def _check_exportable(model: nn.Module) -> None:
    if not isinstance(model, RecAttend | FastRecAttend):
        raise ExportError(
            f"MODEL.META_ARCHITECTURE is '{type(model).__name__}', but only models that cut out objects are exported, "
            "'RecAttend' and 'FastRecAttend'. Give the config and weights of stage C or of a fast recipe."
        )
    if isinstance(model.preprocessor, GivenMaps):
        raise ExportError(
            "MODEL.REC_ATTEND.PREPROCESSOR.NAME 'GivenMaps' takes its maps from annotations, which an exported model "
            "does not have. Export a model whose preprocessor predicts them."
        )


def _exportable_copy(model: RecurrentAttention, steps: int) -> RecurrentAttention:
    """A copy in evaluation mode that looks at one object per step. Raises an ExportError where that is impossible."""
    _check_steps(model, steps)
    own = copy.deepcopy(model).eval().requires_grad_(False)
    if isinstance(own, FastRecAttend):
        own.box_proposer.objects_per_glance = 1
        own.__class__ = OneByOne
    return own


def _find_while_loop() -> Callable:
    """PyTorch's loop whose end depends on data, the only one that it exports; not public, and newer than the rest."""
    try:
        from torch._higher_order_ops.while_loop import while_loop
    except ImportError as error:
        raise ExportError(
            f"PyTorch {torch.__version__} cannot put a loop into a graph: update it, or export a fixed number of steps "
            "(leave --stop-loop out)."
        ) from error
    return while_loop


# What a step leaves behind, by the output's name.
_OUTPUTS: dict[str, Callable[[Step], Tensor | None]] = {
    "masks": lambda step: step.cut.mask,
    "scores": lambda step: step.score,
    "centers": lambda step: step.where.boxes.center,
    "sizes": lambda step: step.where.boxes.size,
    "class_probabilities": lambda step: step.class_probabilities,
}


def _outputs(step: Step) -> dict[str, Tensor]:
    values = {name: read(step) for name, read in _OUTPUTS.items()}
    return {name: value for name, value in values.items() if value is not None}


class _TensorModel(nn.Module):
    """What both have in common: a copy of the model, and one that a graph is made of.

    Attributes:
        steps: T.
    """

    def __init__(self, model: nn.Module, steps: int):
        """
        Args:
            model: a RecAttend or FastRecAttend.
            steps: T.

        Raises:
            ExportError: another model, one that needs maps made of annotations, or a number of steps it has no norm
                statistics for.
        """
        super().__init__()
        _check_exportable(model)
        assert isinstance(model, RecurrentAttention)
        self.steps: int = steps
        self.model = _exportable_copy(model, steps)
        # In a tuple so that its weights are no part of the graph.
        self._original = (copy.deepcopy(self.model),)
        fold_norms(self.model)

    @property
    def original(self) -> RecurrentAttention:
        """The model as it was trained, one object per step."""
        return self._original[0]

    @staticmethod
    def _inputs(model: RecurrentAttention, images: Tensor) -> StepInputs:
        return StepInputs(images, torch.zeros_like(images[:, 0]), model.preprocessor(images, []))


class UnrolledModel(_TensorModel):
    """Takes exactly ``steps`` steps, one after another in the graph."""

    def _run(self, model: RecurrentAttention, images: Tensor) -> dict[str, Tensor]:
        inputs, steps = self._inputs(model, images), []
        for number in range(self.steps):
            step = model.step(dataclasses.replace(inputs, number=number), Feeder())
            inputs.memory = model.remember(inputs, step, Feeder())
            steps.append(_outputs(step))
        outputs = {name: torch.stack([step[name] for step in steps], dim=1) for name in steps[0]}
        return outputs if inputs.extra.foreground is None else {**outputs, "foreground": inputs.extra.foreground}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by name, see this file's head, for ``images`` [B, 3, H, W]."""
        return self._run(self.model, images)

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        """What the original model computes for ``images`` [B, 3, H, W]."""
        return self._run(self.original, images)


class StopLoopModel(_TensorModel):
    """A loop in the graph that ends when every image is done, at the latest after ``steps`` steps.

    An image is done at its first step that claims nothing; that step's score and those after it are 0. What would have
    come after the last step of the batch is 0 too, and a further output ``steps`` (int64 []) is the number of steps
    taken.
    """

    def __init__(self, model: nn.Module, steps: int):
        """
        Args:
            model: a RecAttend or FastRecAttend that stops early.
            steps: T, the largest number of steps.

        Raises:
            ExportError: as :class:`UnrolledModel`; MODEL.REC_ATTEND.TEST.STOP_EARLY is False; this release of PyTorch
                has no loops in graphs.
        """
        super().__init__(model, steps)
        if not self.original.stop_early:
            raise ExportError(
                "MODEL.REC_ATTEND.TEST.STOP_EARLY is False, so this model never stops early: leave --stop-loop out."
            )
        self._while_loop = _find_while_loop()

    def _empty(self, model: RecurrentAttention, images: Tensor) -> dict[str, Tensor]:
        """Room for all steps, [B, T, ...] each."""
        shapes: dict[str, tuple[int, ...]] = {
            "masks": tuple(images.shape[2:]),
            "scores": (),
            "centers": (2,),
            "sizes": (2,),
        }
        scorer = getattr(model, "class_scorer", None)
        if scorer is not None:
            shapes["class_probabilities"] = (scorer.classes,)
        return {name: images.new_zeros(images.shape[0], self.steps, *shape) for name, shape in shapes.items()}

    def _run(self, model: RecurrentAttention, images: Tensor, loop: Callable) -> dict[str, Tensor]:
        first, slots = self._inputs(model, images), torch.arange(self.steps, device=images.device)

        def goes_on(number: Tensor, going_on: Tensor, *_: Tensor) -> Tensor:
            return (number < self.steps) & going_on.any()

        def take_step(number: Tensor, going_on: Tensor, memory: Tensor, *sequences: Tensor) -> tuple[Tensor, ...]:
            inputs = StepInputs(images, memory, first.extra, number)  # type: ignore[arg-type]
            step = model.step(inputs, Feeder())
            memory = model.remember(inputs, step, Feeder())
            assert step.claimed is not None
            going_on = going_on & step.claimed
            step.score = step.score * going_on
            here = slots == number
            filled = [
                torch.where(here.view(-1, *[1] * (value.ndim - 1)), value[:, None], sequence)
                for value, sequence in zip(_outputs(step).values(), sequences, strict=True)
            ]
            return number + 1, going_on, memory, *filled

        empty = self._empty(model, images)
        start = torch.zeros((), dtype=torch.int64, device=images.device)
        going_on = torch.ones(images.shape[0], dtype=torch.bool, device=images.device)
        taken, _, _, *sequences = loop(goes_on, take_step, (start, going_on, first.memory, *empty.values()))
        outputs = {**dict(zip(empty, sequences, strict=True)), "steps": taken}
        return outputs if first.extra.foreground is None else {**outputs, "foreground": first.extra.foreground}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by name, see this file's head, for ``images`` [B, 3, H, W]."""
        return self._run(self.model, images, self._while_loop)

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        """What the original model computes for ``images`` [B, 3, H, W], in a loop of Python's."""
        return self._run(self.original, images, _python_loop)


def _python_loop(goes_on: Callable, take_step: Callable, state: tuple) -> tuple:
    while goes_on(*state):
        state = take_step(*state)
    return state
