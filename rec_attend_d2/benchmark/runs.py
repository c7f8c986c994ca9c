"""What is measured: a training step, and inference with all steps or with a given number of objects.

Weights are random and never change, so that every run does the same work.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.optim import Optimizer

from ..data.state_pool import ImageState
from ..data.training import trains_on_a_pool
from ..engine.optimization import build_optimizer
from ..modeling import RecAttend
from ..modeling.paper.sequence_model import SequenceModel
from ..modeling.steps import Feeder
from .batches import check_config, is_of_this_project, synthetic_batch, usual_objects

SEED = 0
# Not an iteration in which models compute statistics or pictures.
ITERATION = 1


def build_random_model(cfg: CfgNode) -> nn.Module:
    """The config's model on its device with random weights, the same in every run; MODEL.WEIGHTS is not read.

    Raises:
        ValueError: a setting is wrong, or wants files of the images.
    """
    check_config(cfg)
    torch.manual_seed(SEED)
    return build_model(cfg)


def _optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """The config's optimizer with a learning rate of 0: the same work, and the same weights in every run."""
    make = build_optimizer if is_of_this_project(cfg) else build_detectron2_optimizer
    optimizer = make(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    return optimizer


class TrainingStep:
    """Forward, backward and optimizer on one synthetic batch."""

    def __init__(self, cfg: CfgNode, model: nn.Module, images: int):
        """
        Args:
            cfg: the config.
            model: of :func:`build_random_model`.
            images: batch size.
        """
        self.model = model
        self.batch = synthetic_batch(cfg, images, usual_objects(cfg))
        self._optimizer = _optimizer(cfg, model)
        # In the fast model's training an image is usually on its way. The memories are those of the first step.
        self._states = [ImageState() for _ in self.batch] if trains_on_a_pool(cfg) else []

    def _next_batch(self) -> list[dict]:
        if not self._states:
            return self.batch
        if self._states[0].memory is None:
            return [{**entry, "state": state} for entry, state in zip(self.batch, self._states, strict=True)]
        return [{**entry, "state": copy.copy(state)} for entry, state in zip(self.batch, self._states, strict=True)]

    def backward(self, losses: dict[str, Tensor]) -> None:
        """Gradients of the sum of the losses."""
        self._optimizer.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]

    def optimize(self) -> None:
        """One step of the optimizer."""
        self._optimizer.step()

    def __call__(self) -> None:
        """Take the step."""
        torch.manual_seed(SEED)
        self.model.train()
        with EventStorage(ITERATION):
            losses = self.model(self._next_batch())
            self.backward(losses)
            self.optimize()


class Inference:
    """A model's results for one synthetic batch.

    Attributes:
        results: of the last call, as the model gives them.
    """

    def __init__(self, model: nn.Module, batch: list[dict]):
        self.model = model
        self.batch = [{key: value for key, value in entry.items() if key != "instances"} for entry in batch]
        self.results: list[dict] = []

    @torch.no_grad()
    def __call__(self) -> None:
        """Infer."""
        self.model.eval()
        self.results = self.model(self.batch)

    def found(self) -> float:
        """Instances per image in the last results; 0 for results without instances."""
        return sum(len(result.get("instances", ())) for result in self.results) / max(len(self.results), 1)


class Unroll(Inference):
    """All T time steps of a recurrent model, without post-processing."""

    @torch.no_grad()
    def __call__(self) -> None:
        """Run the steps."""
        self.model.eval()
        assert isinstance(self.model, SequenceModel)
        self.model.sequence(self.model.first_inputs(self.batch), Feeder())


class StepCounter:
    """Number of time steps in the last call of a model.

    Attributes:
        taken: the number as a tensor: a number that changes would have every compiled step compiled anew.
    """

    def __init__(self, device: torch.device) -> None:
        self.taken = torch.zeros((), dtype=torch.long, device=device)

    @property
    def steps(self) -> int:
        """The number."""
        return int(self.taken)


def _scorer(model: SequenceModel) -> nn.Module:
    scorer: Any = model.stop_scorer if isinstance(model, RecAttend) else model.box_scorer
    return scorer


@contextmanager
def known_scores(model: SequenceModel, objects: int) -> Iterator[StepCounter]:
    """Let every image have ``objects`` objects: the first so many scores become 1, the others 0.

    The scorer computes as ever, only its result is replaced. Yields the number of steps of the last call.
    """
    counter = StepCounter(model.device)

    def restart(module: nn.Module, arguments: Any) -> None:
        counter.taken.zero_()

    def replace(module: nn.Module, arguments: Any, output: Any) -> Any:
        counter.taken.add_(1)
        score, *rest = output if isinstance(output, tuple) else (output,)
        known = torch.ones_like(score) * (counter.taken <= objects)
        return (known, *rest) if rest else known

    handles = [model.register_forward_pre_hook(restart), _scorer(model).register_forward_hook(replace)]
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def stopping(model: RecAttend, early: bool) -> Iterator[None]:
    """Make inference stop early at a score of 0 but not 1, or run all steps, whatever the config says."""
    before = model.stop_early, model.stop_threshold
    model.stop_early, model.stop_threshold = early, 0.5
    try:
        yield
    finally:
        model.stop_early, model.stop_threshold = before


def possible_objects(model: nn.Module, wanted: list[int]) -> list[int]:
    """Those numbers of objects at which the model can still decide to stop; none for a model that never does."""
    return [count for count in wanted if isinstance(model, RecAttend) and count < model.max_steps]


def check_steps(model: nn.Module, taken: int, expected: int, run: Callable) -> None:
    """Raise a RuntimeError unless the model took as many steps as the scores that it was given tell it to."""
    if taken != expected:
        raise RuntimeError(
            f"{type(model).__name__} took {taken} steps in {type(run).__name__}, but its scores say {expected}: its "
            "stop scorer is not called once per step, as this measurement expects."
        )
