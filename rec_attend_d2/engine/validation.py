"""The loss on a part of the validation set, to compare with that of training."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from torch import nn

from ..data import build_mapper
from ..random_numbers import seeded
from .hooks import unwrap

# Of the random numbers that a loss may draw: the same in every training, so that curves can be compared.
_SEED = 0


@contextmanager
def as_in_training(model: nn.Module) -> Iterator[None]:
    """Within it the model computes losses, without gradient; after it all is as before: modes, buffers, schedule.

    Buffers are restored because batch norm in training moves its running statistics. Scheduled sampling is at its end:
    the curve should not fall or rise because the schedule moves on.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    sampling = getattr(model, "scheduled_sampling", None)
    iteration = 0 if sampling is None else sampling.iteration
    try:
        model.train()
        if sampling is not None:
            sampling.iteration = sys.maxsize
        # The statistics that a model logs in training go into a storage that nobody reads.
        with torch.no_grad(), EventStorage():
            yield
    finally:
        if sampling is not None:
            sampling.iteration = iteration
        for module, training in modes:
            module.training = training
        for buffer, before in buffers:
            buffer.copy_(before)


class ValidationBatches:
    """The same batches of validation images each time: spread evenly over the data set, without augmentation."""

    def __init__(self, cfg: CfgNode):
        """
        Raises:
            ValueError: TEST.LOSS_IMAGES is negative.
        """
        if cfg.TEST.LOSS_IMAGES < 0:
            raise ValueError(f"TEST.LOSS_IMAGES is {cfg.TEST.LOSS_IMAGES}; give 0 (no validation loss) or more.")
        self._mapper = build_mapper(cfg, is_train=True, augment=False)
        self._size = cfg.SOLVER.IMS_PER_BATCH
        # Images without annotations, as those of a test set, have no loss.
        dicts = [entry for entry in DatasetCatalog.get(cfg.DATASETS.TEST[0]) if "annotations" in entry]
        count = min(cfg.TEST.LOSS_IMAGES, len(dicts))
        self._dicts = [dicts[index] for index in np.linspace(0, len(dicts) - 1, count).round().astype(int)]

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._dicts) // self._size)

    def __iter__(self) -> Iterator[list[dict]]:
        for start in range(0, len(self._dicts), self._size):
            yield [self._mapper(entry) for entry in self._dicts[start : start + self._size]]


def validation_losses(model: nn.Module, batches: ValidationBatches) -> dict[str, float]:
    """Mean losses of the batches' images by name, the total as "val_loss" and the others as "val_" + name.

    Neither the model nor any random number that is drawn later changes.
    """
    sums: dict[str, float] = defaultdict(float)
    images = 0
    on_cuda = next(model.parameters()).is_cuda
    with torch.random.fork_rng() if on_cuda else nullcontext(), seeded(_SEED), as_in_training(model):
        if on_cuda:
            torch.cuda.manual_seed(_SEED)
        for batch in batches:
            images += len(batch)
            for name, loss in model(batch).items():
                if name != "loss_weight_decay":  # which no image has to do with
                    sums[f"val_{name}"] += loss.item() * len(batch)
    losses = {name: value / images for name, value in sums.items()}
    return {"val_loss": sum(losses.values()), **losses}


class ValidationLossHook(HookBase):
    """Logs :func:`validation_losses` when an evaluation is due. In the main process; goes before the writers."""

    def __init__(self, model: nn.Module, batches: ValidationBatches, period: int):
        """
        Args:
            model: the one that evaluations test, the averaged one if there is one.
            batches: what the losses are computed of.
            period: iterations between two; 0 = only after the last iteration.
        """
        self._model = unwrap(model)
        self._batches = batches
        self._period = period

    def after_step(self) -> None:
        """Log the losses where an evaluation is due."""
        done = self.trainer.iter + 1
        due = self._period > 0 and done % self._period == 0
        if len(self._batches) > 0 and (due or done >= self.trainer.max_iter):
            losses = validation_losses(self._model, self._batches)
            self.trainer.storage.put_scalars(**losses, smoothing_hint=False)
