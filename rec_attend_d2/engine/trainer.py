"""The trainer: Detectron2's, with this project's data, optimizer, evaluators and hooks."""

import logging
import os
import weakref
from collections import OrderedDict
from contextlib import suppress

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.engine.hooks import EvalHook, PeriodicWriter
from detectron2.utils import comm
from torch import nn

from ..checkpoint import load_weights
from ..checkpoint.loading import AVERAGE_KEY
from ..data import build_test_loader, build_train_loader, sees_windows
from ..data.object_size import resolve_object_size
from ..evaluation.build import build_evaluator
from ..random_numbers import run_seed
from ..threads import choose_and_say, is_to_be_chosen
from .accumulation import accumulating, read_batches
from .checkpointer import SafeCheckpointer
from .early_stopping import EarlyStopping, TrainingStopped, read_patience
from .ema import AverageHook, build_average, read_ema_decay
from .hooks import (
    PICTURES,
    MemoryHook,
    PicturesHook,
    ResumableBestCheckpointer,
    ScheduledSamplingHook,
    SeedHook,
    ThreadsHook,
    unwrap,
)
from .optimization import build_lr_scheduler, build_optimizer
from .validation import ValidationBatches, ValidationLossHook
from .watchdog import WatchdogHook, explaining_divergence

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains any of this project's meta-architectures.

    With SOLVER.EMA_DECAY it evaluates the averaged weights, and checkpoints hold both them and the model's own.
    """

    _trainer: SimpleTrainer
    _tested_model: nn.Module

    def __init__(self, cfg: CfgNode):
        """
        Raises:
            ValueError: a setting is wrong; the message names it.
        """
        # Settings are checked before data are read, which can take minutes.
        self._ema_decay = read_ema_decay(cfg)
        self._batches = read_batches(cfg)
        self._patience = read_patience(cfg)
        super().__init__(_measured(cfg))

    # What Detectron2's trainer builds its parts with.
    build_train_loader = staticmethod(build_train_loader)
    build_test_loader = staticmethod(build_test_loader)
    build_optimizer = staticmethod(build_optimizer)
    build_lr_scheduler = staticmethod(build_lr_scheduler)
    build_evaluator = staticmethod(build_evaluator)

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume everything from OUTPUT_DIR, or else load MODEL.WEIGHTS, which may lack whole parts of the model.

        They may also be those of the image encoder alone (see :mod:`rec_attend_d2.checkpoint.image_encoder`).

        A new stage starts from weights only: the optimizer's state is never taken from another training.

        Raises:
            ValueError: MODEL.WEIGHTS holds weights of another configuration.
        """
        if resume and self.checkpointer.has_checkpoint():
            super().resume_or_load(resume=True)
        elif self.cfg.MODEL.WEIGHTS:
            load_weights(unwrap(self.model), self.cfg.MODEL.WEIGHTS, complete=False)

    def state_dict(self) -> dict:
        """What a resumed training needs."""
        return {**super().state_dict(), "data": self.data_loader.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Inverse of :meth:`state_dict`."""
        super().load_state_dict(state_dict)
        if "data" in state_dict:  # older versions' checkpoints have none
            self.data_loader.load_state_dict(state_dict["data"])

    def train(self) -> dict:
        """Train and return the results of the last evaluation, empty if DATASETS.TEST is."""
        with suppress(TrainingStopped):
            super().train()
        return getattr(self, "_last_eval_results", {})

    def run_step(self) -> None:
        """One iteration.

        Raises:
            FloatingPointError: a loss is not finite; the message names it.
        """
        with explaining_divergence(self.model):
            super().run_step()

    def after_step(self) -> None:
        """Let the hooks do their work after an iteration. Raises as :meth:`run_step`."""
        with explaining_divergence(self.model):
            super().after_step()

    def before_train(self) -> None:
        """Start the hooks; make up for an evaluation that an interruption may have cut off after the checkpoint."""
        super().before_train()
        period = self.cfg.TEST.EVAL_PERIOD
        if self.start_iter > 0 and period > 0 and self.start_iter % period == 0:
            self.iter = self.storage.iter = self.start_iter - 1
            for hook in self._hooks:
                if isinstance(hook, EvalHook | ResumableBestCheckpointer | EarlyStopping):
                    hook.after_step()

    def _test(self) -> dict:
        self._last_eval_results = self.test(self.cfg, self._tested_model)
        return self._last_eval_results

    def build_hooks(self) -> list:
        """Detectron2's hooks and ours; writers come after all that has something to write.

        The average comes first, so that checkpoints and evaluations of an iteration have that iteration's.
        """
        self._trainer = accumulating(self._trainer, self._batches)
        self.checkpointer = SafeCheckpointer(self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self._tested_model = self.model
        average_hooks = []
        if self._ema_decay > 0:
            average = build_average(unwrap(self.model), self._ema_decay)
            self.checkpointer.add_checkpointable(AVERAGE_KEY, average)
            self._tested_model = average.module
            average_hooks.append(AverageHook(average, self.model))
        detectron2_hooks = [
            EvalHook(self.cfg.TEST.EVAL_PERIOD, self._test) if isinstance(hook, EvalHook) else hook
            for hook in super().build_hooks()
            if hook is not None
        ]
        writers = [hook for hook in detectron2_hooks if isinstance(hook, PeriodicWriter)]
        others = [hook for hook in detectron2_hooks if hook not in writers]
        samples = hasattr(unwrap(self.model), "scheduled_sampling")
        ours: list = [ScheduledSamplingHook(self.model)] if samples else []
        if comm.is_main_process():
            ours += self._main_process_hooks()
        stopping = [self._early_stopping()] if self._patience > 0 else []
        device = self.cfg.MODEL.DEVICE
        threads = [ThreadsHook(device)] if is_to_be_chosen(device) else []
        return [*threads, SeedHook(run_seed(self.cfg)), *average_hooks, *others, *ours, *writers, *stopping]

    def _early_stopping(self) -> EarlyStopping:
        return EarlyStopping(self.checkpointer, self.cfg.TEST.BEST_METRIC, self.cfg.TEST.EVAL_PERIOD, self._patience)

    def _main_process_hooks(self) -> list:
        period, metric = self.cfg.TEST.EVAL_PERIOD, self.cfg.TEST.BEST_METRIC
        added: list = [WatchdogHook(self.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())]
        if metric and period > 0 and self.cfg.DATASETS.TEST:
            added.append(ResumableBestCheckpointer(period, self.checkpointer, metric))
        if self.cfg.DATASETS.TEST:
            example = next(iter(self.build_test_loader(self.cfg, self.cfg.DATASETS.TEST[0])))[0]
            if any(isinstance(unwrap(self._tested_model), kind) for kind in PICTURES):
                added.append(PicturesHook(self._tested_model, example, period))
            added.append(ValidationLossHook(self._tested_model, ValidationBatches(self.cfg), period))
        return [*added, MemoryHook(self.cfg.MODEL.DEVICE)]


def _measured(cfg: CfgNode) -> CfgNode:
    """The config with the width of its training data's objects, which the weights keep."""
    if cfg.INPUT.OBJECT_SIZE > 0 or not sees_windows(cfg):
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    resolve_object_size(cfg)
    cfg.freeze()
    return cfg


def evaluate(cfg: CfgNode, weights: str) -> OrderedDict:
    """Score finished weights on every data set of DATASETS.TEST.

    Args:
        cfg: the config they were trained with.
        weights: checkpoint file; its averaged weights count where it has some.

    Returns:
        Results by evaluator and metric, as ``DefaultTrainer.test``.

    Raises:
        ValueError: the weights do not fill the model, or there are none.
    """
    if not weights:
        raise ValueError("Evaluation needs weights: add MODEL.WEIGHTS path/to/model_final.pth.")
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty, so there is nothing to evaluate on.")
    choose_and_say(cfg.MODEL.DEVICE, logger.info)
    model = Trainer.build_model(cfg)
    load_weights(model, os.path.expanduser(weights), complete=True)
    return Trainer.test(cfg, model)
