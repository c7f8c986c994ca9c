"""The trainer: Detectron2's, with this project's data, optimizer, evaluators and hooks."""

import logging
import os
import weakref
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from torch import nn

from ..checkpoint import load_weights
from ..checkpoint.loading import AVERAGE_KEY
from ..data import build_test_loader, build_train_loader, sees_windows
from ..data.object_size import resolve_object_size
from ..evaluation.build import build_evaluator
from ..random_numbers import run_seed
from ..threads import choose_and_say, is_to_be_chosen
from ..whole_files import explained_full_disk
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
from .metrics_file import MetricsWriter
from .optimization import build_lr_scheduler, build_optimizer
from .output_folder import CONFIG_KEY, RESULTS_NAME, Refused, check_resumable
from .processes import EqualBuffersHook, distributed
from .validation import ValidationBatches, ValidationLossHook
from .watchdog import WatchdogHook, explaining_divergence

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains any of this project's meta-architectures.

    In several processes it is that of one with all their images, but for batch norm, which sees each process's own.
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
        _check_batch(cfg)
        # Not DefaultTrainer's, which can wrap models for several processes on GPUs only.
        super(DefaultTrainer, self).__init__()
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        self.cfg = cfg = self.auto_scale_workers(_measured(cfg), comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        kind = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = accumulating(kind(distributed(model), loader, optimizer), self._batches)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

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
            ValueError: MODEL.WEIGHTS holds weights of another configuration, or the checkpoint is of another training.
        """
        path = self._checkpoint_to_resume() if resume else ""
        if path:
            changed = check_resumable(self.cfg, path)
            if changed:
                logger.info("Going on with other settings than before: %s.", ", ".join(changed))
            self.checkpointer.load(path)
            self.start_iter = self.iter + 1
        elif self.cfg.MODEL.WEIGHTS:
            load_weights(unwrap(self.model), self.cfg.MODEL.WEIGHTS, complete=False)

    def _checkpoint_to_resume(self) -> str:
        """The checkpoint that the main process chooses, "" if there is none. Raises Refused where others miss it."""
        path = comm.all_gather(self.checkpointer.get_checkpoint_file() if comm.is_main_process() else "")[0]
        missing = comm.all_gather(bool(path) and not os.path.isfile(path))
        if any(missing):
            raise Refused(
                f"'{path}' is not there for process {missing.index(True)}: OUTPUT_DIR has to be a folder that all "
                "machines share."
            )
        return path

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to be done: the last iteration was resumed from, and its results are written."""
        folder = Path(self.cfg.OUTPUT_DIR)
        return self.start_iter >= self.max_iter and (not self.cfg.DATASETS.TEST or (folder / RESULTS_NAME).is_file())

    def state_dict(self) -> dict:
        """What a resumed training needs; of all processes the same."""
        noted = {"data": self.data_loader.state_dict(), CONFIG_KEY: self.cfg.dump(), "processes": comm.get_world_size()}
        return {**super().state_dict(), **noted}

    def load_state_dict(self, state_dict: dict) -> None:
        """Inverse of :meth:`state_dict`."""
        super().load_state_dict(state_dict)
        if "data" in state_dict:  # older versions' checkpoints have none
            self.data_loader.load_state_dict(state_dict["data"])
        before, now = state_dict.get("processes", 1), comm.get_world_size()
        if before != now:
            logger.warning(
                "Trained by %d processes so far and by %d from now on: images come in another order than they would "
                "have without the interruption.",
                *(before, now),
            )

    def train(self) -> dict:
        """Train and return the results of the last evaluation, empty if DATASETS.TEST is."""
        with suppress(TrainingStopped), explained_full_disk(Path(self.cfg.OUTPUT_DIR)):
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
        self._tested_model = self.model
        models, average_hooks = [unwrap(self.model)], []
        if self._ema_decay > 0:
            average = build_average(unwrap(self.model), self._ema_decay)
            self.checkpointer.add_checkpointable(AVERAGE_KEY, average)
            self._tested_model = average.module
            models.append(average.module)
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
        # Before what saves and evaluates, after what changes the model.
        equal = EqualBuffersHook(models, [self.cfg.SOLVER.CHECKPOINT_PERIOD, self.cfg.TEST.EVAL_PERIOD])
        place = [isinstance(hook, PeriodicCheckpointer | EvalHook) for hook in others].index(True)
        others.insert(place, equal)
        return [*threads, SeedHook(run_seed(self.cfg)), *average_hooks, *others, *ours, *writers, *stopping]

    def build_writers(self) -> list:
        """Detectron2's, but one for metrics.json that a resumed training can go on with."""
        path = Path(self.cfg.OUTPUT_DIR, "metrics.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        printer, tensorboard = CommonMetricPrinter(self.max_iter), TensorboardXWriter(self.cfg.OUTPUT_DIR)
        return [printer, MetricsWriter(path, lambda: self.start_iter), tensorboard]

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


def _check_batch(cfg: CfgNode) -> None:
    """Raise :class:`Refused` where the processes can't share a batch evenly."""
    size, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    if size % processes:
        raise Refused(f"SOLVER.IMS_PER_BATCH is {size}, which {processes} processes can't share: give a multiple.")


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
