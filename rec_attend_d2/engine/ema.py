"""Exponential moving average (EMA) of the weights, on PyTorch's AveragedModel.

Each process of a distributed training averages for itself, without communication: parameters are equal in all
processes after every optimizer step, so their averages are too. Running statistics of batch norm are each process's
own, as in the model itself, until a checkpoint or an evaluation is due (see :class:`.processes.EqualBuffersHook`).
"""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .hooks import unwrap


def read_ema_decay(cfg: CfgNode) -> float:
    """SOLVER.EMA_DECAY; 0 = no average.

    Raises:
        ValueError: it is outside [0, 1).
    """
    decay = cfg.SOLVER.EMA_DECAY
    if not 0 <= decay < 1:
        raise ValueError(f"SOLVER.EMA_DECAY is {decay}; give a number of at least 0 (no average) and below 1.")
    return decay


def warmed_up_decay(decay: float, updates: int) -> float:
    """``min(decay, (1 + updates) / (10 + updates))``: the average soon forgets the first, bad weights."""
    return min(decay, (1 + updates) / (10 + updates))


def _averaging(decay: float) -> Callable:
    def update(averaged: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        if averaged[0].is_floating_point():
            get_ema_multi_avg_fn(warmed_up_decay(decay, int(updates)))(averaged, current, updates)
            return
        for old, new in zip(averaged, current, strict=True):  # counters
            old.copy_(new)

    return update


def build_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a model that :class:`AverageHook` makes the average of its weights and buffers.

    The first update takes the weights as they are, so that it does not matter what the model is loaded with before.

    Args:
        model: not wrapped for distributed training.
        decay: the largest decay, in (0, 1).

    Returns:
        The average; its ``module`` is the copy, in evaluation mode.
    """
    average = AveragedModel(model, multi_avg_fn=_averaging(decay), use_buffers=True)
    average.requires_grad_(False)
    return average.eval()


class AverageHook(HookBase):
    """Updates an average after every optimizer step. Goes before the hooks that write and evaluate it."""

    def __init__(self, average: AveragedModel, model: nn.Module):
        """
        Args:
            average: of :func:`build_average`.
            model: the model in training.
        """
        self._average = average
        self._model = unwrap(model)

    def after_step(self) -> None:
        """Update the average."""
        self._average.update_parameters(self._model)
