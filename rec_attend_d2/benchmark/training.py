"""Training under a budget, of this project's models and of Detectron2's, by their own trainers and one more hook."""

import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import inference_context
from detectron2.utils.env import seed_all_rng
from torch import nn
from torch.utils.data import DataLoader

from ..engine import Trainer
from ..engine.checkpointer import SafeCheckpointer
from ..engine.early_stopping import TrainingStopped
from ..engine.time_budget import move_schedule
from ..process_memory import peak_memory
from .measuring import on_cuda
from .models import DetectorMapper, ModelSpec
from .probes import is_of_this_project

# Checkpoints per training, at equal shares of the budget.
CHECKPOINTS = 16
FINAL = "model_final"
# The checkpoint that an interrupted training goes on from; always the last one.
STATE = "state"

Evaluate = Callable[[nn.Module], dict[str, Any]]
"""From a model to what is kept of it in the learning curve."""


class BudgetHook(HookBase):
    """Ends a training when its budget is spent; goes last of all hooks.

    The learning rate's schedule stands at the share of the budget that is used, however fast iterations are. What was
    used is part of the checkpoints, so that a resumed training goes on there.

    Attributes:
        seconds: of the iterations so far, by the budget's clock.
        cpu_seconds: of the same, of all threads of this process together.
        iterations: so far.
        peak_memory: largest memory in bytes that training alone needed; 0 = not known yet.
        curve: evaluations so far, each with ``iterations``, ``seconds``, ``share`` and ``metrics``.
    """

    _KEPT = ("seconds", "cpu_seconds", "iterations", "peak_memory", "curve")

    def __init__(self, spec: ModelSpec, evaluate: Evaluate):
        self._spec = spec
        self._evaluate = evaluate
        self._start = (0.0, 0.0)
        self.seconds = self.cpu_seconds = 0.0
        self.iterations = self.peak_memory = 0
        self.curve: list[dict[str, Any]] = []

    @property
    def share(self) -> float:
        """Of the budget, in [0, 1]."""
        return self._spec.share(self.seconds, self.iterations)

    def state_dict(self) -> dict:
        """What a resumed training needs."""
        return {name: getattr(self, name) for name in self._KEPT}

    def load_state_dict(self, state: dict) -> None:
        """Inverse of :meth:`state_dict`."""
        for name in self._KEPT:
            setattr(self, name, state[name])

    def before_step(self) -> None:
        """The iteration begins."""
        self._start = time.perf_counter(), time.process_time()

    def after_step(self) -> None:
        """Count the iteration, set the next one's learning rate, and evaluate and save where that is due.

        Raises:
            TrainingStopped: the budget is spent; the final weights are saved.
        """
        if on_cuda(self.trainer.cfg.MODEL.DEVICE):
            torch.cuda.synchronize()
        before = self.share
        wall, cpu = self._since_start()
        self.seconds += cpu if self._spec.clock == "cpu" else wall
        self.cpu_seconds += cpu
        self.iterations += 1
        move_schedule(self.trainer, self.share)
        checkpointer = self.trainer.checkpointer
        points = self._spec.points
        if int(self.share * points) > int(before * points):
            self._add_point()
        if self.share >= 1:
            checkpointer.save(FINAL, iteration=self.trainer.iter)
            Path(checkpointer.save_dir, f"{STATE}.pth").unlink(missing_ok=True)
            raise TrainingStopped
        if int(self.share * CHECKPOINTS) > int(before * CHECKPOINTS):
            checkpointer.save(STATE, iteration=self.trainer.iter)

    def _since_start(self) -> tuple[float, float]:
        """Seconds of the iteration by the wall clock, and of all threads of this process."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]

    def _add_point(self) -> None:
        if not self.peak_memory:  # before anything but training has run in this process
            self.peak_memory = peak_memory(self.trainer.cfg.MODEL.DEVICE)
        # The averaged weights, where the trainer has some.
        model = getattr(self.trainer, "_tested_model", self.trainer.model)
        with torch.no_grad(), inference_context(model):
            metrics = self._evaluate(model)
        point = {"iterations": self.iterations, "seconds": self.seconds, "share": self.share, "metrics": metrics}
        self.curve.append(point)


class DetectorTrainer(DefaultTrainer):
    """Trains Detectron2's own models on images of this project's data loader."""

    def __init__(self, cfg: CfgNode):
        super().__init__(cfg)
        self.checkpointer = SafeCheckpointer(self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
        """Endless loader over DATASETS.TRAIN with :class:`.models.DetectorMapper`."""
        return build_detection_train_loader(cfg, mapper=DetectorMapper(cfg, is_train=True))


def train_under_budget(spec: ModelSpec, cfg: CfgNode, evaluate: Evaluate) -> BudgetHook:
    """Train to the end of the budget, from where an interrupted training in OUTPUT_DIR stopped.

    Leaves ``FINAL``.pth in OUTPUT_DIR and returns what was used, with the learning curve.
    """
    cfg = cfg.clone()
    # The hook evaluates and saves, outside the time that counts.
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD, cfg.SOLVER.EARLY_STOPPING = (), 0, 0
    cfg.SOLVER.CHECKPOINT_PERIOD = sys.maxsize
    hook = BudgetHook(spec, evaluate)
    seed_all_rng(cfg.SEED)
    trainer = (Trainer if is_of_this_project(cfg) else DetectorTrainer)(cfg)
    trainer.register_hooks([hook])
    trainer.max_iter = sys.maxsize
    trainer.resume_or_load(resume=True)
    # Not the images over again that were seen before the interruption.
    seed_all_rng(cfg.SEED + hook.iterations)
    if hook.share < 1:
        with suppress(TrainingStopped):
            trainer.train()
    return hook
