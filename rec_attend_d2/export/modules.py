"""The full model with tensors in and tensors out, for a fixed number of steps or until no object is left.

Shapes: `B` images, `T` steps, `K` classes, `H, W` network input (INPUT.IMAGE_SIZE).

Input of both modules: images [B, 3, H, W], float32, BGR, normalised by MODEL.PIXEL_MEAN and PIXEL_STD (with those of
this project's configs in [0, 1]), as :meth:`.ImageModel.preprocess_image` makes them. Outputs by name:

* ``masks`` [B, T, H, W], soft masks in [0, 1], not multiplied by the score;
* ``scores`` [B, T] in [0, 1], is there an object;
* ``centers``, ``sizes`` [B, T, 2], boxes, (y, x) in pixels of the network input;
* ``class_probabilities`` [B, T, K], only of a model that scores classes;
* ``foreground`` [B, K, H, W], only of a model whose preprocessor makes such maps.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.step_norm import PerStepBatchNorm, SharedBatchNorm
from ..modeling import MaskSequence, RecAttend
from ..modeling.inputs import StepInputs
from ..modeling.preprocessor import GivenMaps
from ..modeling.step_types import ExtraMaps, MaskStep
from .folded_norm import fold_norms


class ExportError(ValueError):
    """This model cannot be exported, or not in this way."""


def _check_steps(model: RecAttend, steps: int) -> None:
    if steps < 1:
        raise ExportError(f"A graph of {steps} steps finds nothing; give at least 1.")
    for module in model.modules():
        if isinstance(module, PerStepBatchNorm) and not isinstance(module, SharedBatchNorm):
            # The image encoder has one row, as it runs once.
            if 1 < len(module.weight) < steps:
                raise ExportError(
                    f"{steps} steps are asked for, but with MODEL.REC_ATTEND.NORM 'per_step' there are statistics for "
                    f"TIME_STEPS = {len(module.weight)} steps only. Give fewer --steps."
                )


def _check_exportable(model: nn.Module) -> None:
    if not isinstance(model, RecAttend):
        raise ExportError(
            f"MODEL.META_ARCHITECTURE is '{type(model).__name__}', but only the full model, 'RecAttend', is exported. "
            "Give the config and weights of stage C or of the fast recipe."
        )
    if isinstance(model.preprocessor, GivenMaps):
        raise ExportError(
            "MODEL.REC_ATTEND.PREPROCESSOR.NAME 'GivenMaps' takes its maps from annotations, which an exported model "
            "does not have. Export a model whose preprocessor predicts them."
        )


def _copy_with_steps(model: nn.Module, steps: int) -> RecAttend:
    """A copy that takes ``steps`` steps, in evaluation mode. Raises an ExportError where that is impossible."""
    assert isinstance(model, RecAttend)
    _check_steps(model, steps)
    own = copy.deepcopy(model).eval().requires_grad_(False)
    own.time_steps = own.max_steps = steps
    if hasattr(own.preprocessor, "cache_dir"):
        own.preprocessor.cache_dir = ""  # a graph reads no files
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


def _named(**outputs: Tensor | None) -> dict[str, Tensor]:
    return {name: value for name, value in outputs.items() if value is not None}


def _sequence_outputs(sequence: MaskSequence, extra: ExtraMaps) -> dict[str, Tensor]:
    return _named(
        masks=sequence.masks,
        scores=sequence.scores,
        centers=sequence.centers,
        sizes=sequence.sizes,
        class_probabilities=sequence.class_probabilities,
        foreground=extra.foreground,
    )


class _TensorModel(nn.Module):
    """What both have in common: a copy of the model, and one that a graph is made of.

    Attributes:
        steps: T.
    """

    # Attribute of the model that says how many steps it takes.
    _own_steps: str

    def __init__(self, model: nn.Module, steps: int | None = None):
        """
        Args:
            model: a RecAttend.
            steps: T; by default the model's.

        Raises:
            ExportError: another model, one that needs maps made of annotations, or a number of steps it has no norm
                statistics for.
        """
        super().__init__()
        _check_exportable(model)
        self.steps: int = getattr(model, self._own_steps) if steps is None else steps
        self.model = _copy_with_steps(model, self.steps)
        # In a tuple so that its weights are no part of the graph.
        self._original = (copy.deepcopy(self.model),)
        fold_norms(self.model)

    @property
    def original(self) -> RecAttend:
        """The model as it was trained, for ``steps`` steps."""
        return self._original[0]


class UnrolledModel(_TensorModel):
    """Takes exactly ``steps`` steps, one after another in the graph; by default TIME_STEPS."""

    _own_steps = "time_steps"

    @staticmethod
    def _run(model: RecAttend, images: Tensor) -> dict[str, Tensor]:
        extra = model.preprocessor(images, [])
        return _sequence_outputs(model.unroll(images, extra), extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by name, see this file's head, for ``images`` [B, 3, H, W]."""
        return self._run(self.model, images)

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        """What the original model computes for ``images`` [B, 3, H, W]."""
        return self._run(self.original, images)


class StopLoopModel(_TensorModel):
    """A loop in the graph that ends when every image is done, at the latest after ``steps`` steps.

    An image is done at its first score below TEST.SCORE_THRESHOLD; that score and those after it are 0. What would
    have come after the last step of the batch is 0 too, and a further output ``steps`` (int64 []) is the number of
    steps taken.
    """

    _own_steps = "max_steps"

    def __init__(self, model: nn.Module, steps: int | None = None):
        """
        Args:
            model: a RecAttend that stops early.
            steps: T, the largest number of steps; by default TEST.MAX_STEPS.

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

    def _written(self, result: MaskStep, going_on: Tensor) -> list[Tensor]:
        """What a step leaves behind, in the order of :meth:`_empty`; [B, ...] each."""
        boxes = result.proposal.boxes
        values = [result.mask, result.score * going_on, boxes.center, boxes.size]
        return values if result.class_probabilities is None else [*values, result.class_probabilities]

    def _empty(self, images: Tensor) -> dict[str, Tensor]:
        """Room for all steps, [B, T, ...] each."""
        shapes: dict[str, Any] = {"masks": images.shape[2:], "scores": (), "centers": (2,), "sizes": (2,)}
        if self.model.class_scorer is not None:
            shapes["class_probabilities"] = (self.model.class_scorer.classes,)
        return {name: images.new_zeros(images.shape[0], self.steps, *shape) for name, shape in shapes.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by name, see this file's head, for ``images`` [B, 3, H, W]."""
        model, steps = self.model, self.steps
        extra = model.preprocessor(images, [])
        slots = torch.arange(steps, device=images.device)

        def goes_on(step: Tensor, going_on: Tensor, *_: Tensor) -> Tensor:
            return (step < steps) & going_on.any()

        def take_step(step: Tensor, going_on: Tensor, memory: Tensor, *sequences: Tensor) -> tuple[Tensor, ...]:
            result = model.take_step(StepInputs(images, memory, extra), step)  # type: ignore[arg-type]
            going_on = going_on & (result.score >= model.stop_threshold)
            here = slots == step
            filled = [
                torch.where(here.view(-1, *[1] * (value.ndim - 1)), value[:, None], sequence)
                for value, sequence in zip(self._written(result, going_on), sequences, strict=True)
            ]
            return step + 1, going_on, model.memory.update(memory, result.mask, extra), *filled

        empty = self._empty(images)
        start = torch.zeros((), dtype=torch.int64, device=images.device)
        going_on = torch.ones(images.shape[0], dtype=torch.bool, device=images.device)
        state = (start, going_on, model.memory.initial(images), *empty.values())
        taken, _, _, *sequences = self._while_loop(goes_on, take_step, state)
        outputs = dict(zip(empty, sequences, strict=True))
        return {**outputs, **_named(foreground=extra.foreground), "steps": taken}

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        """What the original model computes for ``images`` [B, 3, H, W], with zeros after its last step."""
        model = self.original
        extra = model.preprocessor(images, [])
        memory, going_on = model.memory.initial(images), torch.ones(len(images), dtype=torch.bool, device=images.device)
        taken: list[MaskStep] = []
        while len(taken) < self.steps and going_on.any():
            result = model.take_step(StepInputs(images, memory, extra), len(taken))
            going_on = going_on & (result.score >= model.stop_threshold)
            result.score = result.score * going_on
            memory = model.memory.update(memory, result.mask, extra)
            taken.append(result)
        sequence = model._sequence(taken)
        outputs = _sequence_outputs(sequence, extra)
        for name, empty in self._empty(images).items():
            empty[:, : len(taken)] = outputs[name]
            outputs[name] = empty
        return {**outputs, "steps": torch.tensor(len(taken))}
