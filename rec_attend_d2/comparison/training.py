"""Training under a budget, of this project's models and of Detectron2's: the same loop, hooks and evaluations."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.engine.hooks import BestCheckpointer, EvalHook, LRScheduler, PeriodicCheckpointer
from detectron2.evaluation import inference_context
from detectron2.utils.events import EventStorage
from torch import nn
from torch.utils.data import DataLoader

from ..benchmark.batches import is_of_this_project
from ..engine import Trainer
from ..engine.early_stopping import EarlyStopping
from ..engine.hooks import PicturesHook
from ..engine.validation import ValidationLossHook
from ..process_memory import peak_memory
from ..whole_files import write_json
from .budget import BudgetLRScheduler, Spent, Stopwatch
from .files import read_json
from .models import DetectorMapper

# Evaluations per training, at equal shares of the budget, and checkpoints.
POINTS = 8
CHECKPOINTS = 16
# The schedule's length needs no more than this: iterations, and share of the budget.
PACE_ITERATIONS = 20
PACE_SHARE = 0.03
# These start up: they allocate, and workers read the first images.
PACE_WARMUP = 2
FINAL = "model_final.pth"
CURVE = "curve.json"
# Written in turn, so that one of them is always whole.
_STATES = ("state_a", "state_b")
# What they do is done by the loop, outside the time that counts.
_REPLACED = (BestCheckpointer, EarlyStopping, EvalHook, PeriodicCheckpointer, PicturesHook, ValidationLossHook)

Evaluate = Callable[[nn.Module], dict[str, Any]]
"""From a model to what is kept of it in the learning curve."""


class _Budgeted(DefaultTrainer):
    """Trains until the budget is spent. Mixed into a trainer; its ``train`` takes the place of Detectron2's."""

    def __init__(self, cfg: CfgNode, spent: Spent):
        """
        Args:
            cfg: its SOLVER.MAX_ITER is how far the learning rate's schedule goes.
            spent: with the budget.
        """
        self.spent = spent
        self._stopwatch = Stopwatch()
        super().__init__(cfg)

    def build_hooks(self) -> list:
        """The trainer's hooks without evaluations and checkpoints, and with a schedule that follows the budget."""
        hooks = [hook for hook in super().build_hooks() if hook is not None and not isinstance(hook, _REPLACED)]
        schedule = BudgetLRScheduler(self.spent)
        return [self.spent, *(schedule if type(hook) is LRScheduler else hook for hook in hooks)]

    def trained_model(self) -> nn.Module:
        """The model that is evaluated: the averaged one if there is one."""
        model: nn.Module = getattr(self, "_tested_model", None) or self._trainer.model
        return model

    @contextmanager
    def _running(self) -> Iterator[None]:
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                yield
            finally:
                self.after_train()

    def _iterate(self) -> float:
        """One iteration; its seconds."""
        self._stopwatch.start()
        self.before_step()
        self.run_step()
        self.after_step()
        if self.cfg.MODEL.DEVICE.startswith("cuda"):
            torch.cuda.synchronize()
        wall, cpu = self._stopwatch.stop()
        seconds = cpu if self.spent.budget.clock == "cpu" else wall
        self.spent.seconds += seconds
        self.spent.cpu_seconds += cpu
        self.spent.iterations += 1
        return seconds

    def pace(self) -> float:
        """Seconds per iteration, from the first ones; the trainer is of no use afterwards."""
        times: list[float] = []
        with self._running():
            while len(times) < PACE_WARMUP + PACE_ITERATIONS:
                times.append(self._iterate())
                self.iter += 1
                if self.spent.share > PACE_SHARE and len(times) > PACE_WARMUP:
                    break
        return sum(times[PACE_WARMUP:]) / len(times[PACE_WARMUP:])

    def train_under_budget(self, evaluate: Evaluate) -> None:
        """Train to the end of the budget, from where an interrupted training stopped.

        Leaves :data:`FINAL` and :data:`CURVE` in OUTPUT_DIR.
        """
        folder = Path(self.cfg.OUTPUT_DIR)
        points = [p for p in read_json(folder / CURVE) or [] if p["iterations"] <= self.spent.iterations]
        evaluated = int(points[-1]["share"] * POINTS) if points else 0
        saved = int(self.spent.share * CHECKPOINTS)
        with self._running():
            while True:
                if int(self.spent.share * POINTS) > evaluated:
                    evaluated = int(self.spent.share * POINTS)
                    self._take_stock()
                    points.append(self._point(evaluate))
                    write_json(folder / CURVE, points)
                if self.spent.share >= 1:
                    break
                self._iterate()
                if int(self.spent.share * CHECKPOINTS) > saved:
                    saved = int(self.spent.share * CHECKPOINTS)
                    self._take_stock()
                    self._save_state(saved)
                self.iter += 1
        self._finish(folder)

    def _take_stock(self) -> None:
        """Stalls so far, and the peak of memory before anything but training has run in this process."""
        self.spent.stalls += self._stopwatch.stalls
        self._stopwatch.stalls = 0.0
        if not self.spent.peak_memory:
            self.spent.peak_memory = peak_memory(self.cfg.MODEL.DEVICE)

    def _point(self, evaluate: Evaluate) -> dict[str, Any]:
        model = self.trained_model()
        with torch.no_grad(), inference_context(model):
            metrics = evaluate(model)
        spent = self.spent
        return {
            "iterations": spent.iterations,
            "seconds": spent.seconds,
            "share": spent.share,
            "metrics": metrics,
        }

    def _save_state(self, number: int) -> None:
        self.checkpointer.save(_STATES[number % len(_STATES)])

    def _finish(self, folder: Path) -> None:
        """The last state becomes the final weights, the other one goes."""
        os.replace(self.checkpointer.get_checkpoint_file(), folder / FINAL)
        self.checkpointer.tag_last_checkpoint(FINAL)
        for name in _STATES:
            (folder / f"{name}.pth").unlink(missing_ok=True)


class BudgetedTrainer(_Budgeted, Trainer):
    """Of this project's models."""


class BudgetedDetectorTrainer(_Budgeted):
    """Of Detectron2's own models, on this project's data loader."""

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
        """Endless loader over DATASETS.TRAIN with :class:`.models.DetectorMapper`."""
        return build_detection_train_loader(cfg, mapper=DetectorMapper(cfg, is_train=True))


def build_trainer(cfg: CfgNode, spent: Spent) -> BudgetedTrainer | BudgetedDetectorTrainer:
    """The trainer of a config's meta-architecture."""
    kind = BudgetedTrainer if is_of_this_project(cfg) else BudgetedDetectorTrainer
    return kind(cfg, spent)
