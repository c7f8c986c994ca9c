"""Re-estimating batch norm's running statistics from data."""

from collections import Counter
from collections.abc import Iterable

import torch

from ..layers.step_norm import PerStepBatchNorm
from ..modeling.paper.sequence_model import SequenceModel
from ..modeling.steps import Feeder


class _EvenAverage:
    """Pre-forward hook that makes a norm's running averages the plain mean over all calls since it was set up."""

    def __init__(self) -> None:
        self._calls: Counter[int] = Counter()

    def __call__(self, norm: PerStepBatchNorm, arguments: tuple) -> None:
        slot = norm.slot(arguments[1])
        self._calls[slot] += 1
        norm.momentum = 1 / self._calls[slot]


@torch.no_grad()
def estimate_running_statistics(model: SequenceModel, batches: Iterable[list[dict]]) -> int:
    """Set running means and variances to their average over batches, by forward passes in training mode.

    The original's published weights lack these statistics. Memory and boxes are the model's own predictions, as at
    inference. The model is left in the mode it was in.

    Args:
        model: changed in place.
        batches: batches of dataset dicts, as RecAttendDatasetMapper makes them; the more images the better.

    Returns:
        Number of batches used.

    Raises:
        ValueError: there was no batch.
    """
    norms = [module for module in model.modules() if isinstance(module, PerStepBatchNorm)]
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    hooks = [norm.register_forward_pre_hook(_EvenAverage()) for norm in norms]
    model.train()
    count = 0
    for batch in batches:
        model.unroll(model.first_inputs(batch), model.time_steps, Feeder())
        count += 1
    for norm, hook, momentum in zip(norms, hooks, momenta, strict=True):
        hook.remove()
        norm.momentum = momentum
    model.train(was_training)
    if count == 0:
        raise ValueError("No images were given to estimate running statistics from.")
    return count
