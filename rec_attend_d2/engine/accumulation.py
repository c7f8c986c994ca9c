"""Gradient accumulation: one optimizer step from several batches (SOLVER.ACCUMULATE)."""

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from detectron2.config import CfgNode
from detectron2.engine.train_loop import AMPTrainer, SimpleTrainer
from torch import Tensor, nn


def read_batches(cfg: CfgNode) -> int:
    """SOLVER.ACCUMULATE.

    Raises:
        ValueError: it is below 1.
    """
    batches = cfg.SOLVER.ACCUMULATE
    if batches < 1:
        raise ValueError(f"SOLVER.ACCUMULATE is {batches}; give at least 1, the number of batches per optimizer step.")
    return batches


class AccumulatingTrainer(SimpleTrainer):
    """Detectron2's training step on the mean of the losses of several batches. One of them at a time is in memory."""

    batches = 1

    def compute_losses(self, data: list[dict]) -> Mapping[str, Tensor]:
        """Losses of one batch by name."""
        return self.model(data)

    def add_gradients(self, loss: Tensor) -> None:
        """Backward pass of a batch's share of the loss."""
        loss.backward()

    def take_optimizer_step(self) -> None:
        """Change the weights."""
        self.optimizer.step()

    def _synchronised(self, last: bool) -> AbstractContextManager:
        """Processes exchange gradients once, in the last backward pass."""
        distributed = isinstance(self.model, nn.parallel.DistributedDataParallel)
        return self.model.no_sync() if distributed and not last else nullcontext()

    def run_step(self) -> None:
        """One optimizer step, which is one iteration."""
        assert self.model.training, "the model was changed to evaluation mode"
        self.optimizer.zero_grad()
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        data_time = 0.0
        for number in range(self.batches):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            with self._synchronised(last=number == self.batches - 1):
                losses = {name: loss / self.batches for name, loss in self.compute_losses(data).items()}
                self.add_gradients(sum(losses.values()))  # type: ignore[arg-type]
            for name, loss in losses.items():
                sums[name] = sums[name].to(loss.device) + loss.detach()
        self.after_backward()
        self._write_metrics(sums, data_time)
        self.take_optimizer_step()


class AccumulatingAMPTrainer(AccumulatingTrainer, AMPTrainer):
    """The same with mixed precision (SOLVER.AMP.ENABLED): one scale for the batches of a step."""

    def compute_losses(self, data: list[dict]) -> Mapping[str, Tensor]:
        """Losses of one batch by name."""
        with torch.autocast("cuda", dtype=self.precision):
            return super().compute_losses(data)

    def add_gradients(self, loss: Tensor) -> None:
        """Backward pass of the scaled loss."""
        self.grad_scaler.scale(loss).backward()

    def take_optimizer_step(self) -> None:
        """Change the weights, unless a gradient is not finite."""
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()


def accumulating(trainer: SimpleTrainer, batches: int) -> SimpleTrainer:
    """``trainer`` as one that takes an optimizer step per so many ``batches``; with one it stays as it is."""
    if batches == 1:
        return trainer
    arguments = (trainer.model, trainer.data_loader, trainer.optimizer)
    kind = AccumulatingAMPTrainer if isinstance(trainer, AMPTrainer) else AccumulatingTrainer
    result = kind(*arguments)
    result.batches = batches
    return result
