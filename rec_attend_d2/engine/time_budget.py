"""Trainings that end when their time is over, however fast the machine is."""

import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.utils.env import seed_all_rng

from .early_stopping import TrainingStopped
from .trainer import Trainer

# Length of the learning rate's schedule, which moves by the share of the time that is used.
SCHEDULE_LENGTH = 10_000
# Iterations by which the speed is measured, and how many before them do not count.
_MEASURED, _WARMUP = 30, 10
# An iteration takes longer once the model finds something.
_SLOWER_LATER = 1.3

# Is told the share of the time that is used, in [0, 1], and the latest value of everything that is logged.
Tell = Callable[[float, dict[str, float]], object]


def _nothing(share: float, latest: dict[str, float]) -> None:
    """Tells nobody."""


def move_schedule(trainer: DefaultTrainer, share: float) -> None:
    """Let the learning rate stand where it does after a ``share`` in [0, 1] of the schedule."""
    scheduler, length = trainer.scheduler, trainer.cfg.SOLVER.MAX_ITER
    # The trainer's own hook steps once more before this is set again, and the schedule ends at its length.
    scheduler.last_epoch = min(round(share * length), length - 1) - 1
    with warnings.catch_warnings():
        # Of the order of calls, which is meant for loops that step by one.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        scheduler.step()


class TimeBudgetHook(HookBase):
    """Ends a training after so many seconds, evaluations included, and moves its schedule with them; goes last.

    What was used is part of the checkpoints, so that a resumed training goes on there.

    Attributes:
        seconds: used so far.
        iterations: done so far.
    """

    def __init__(self, budget: float, tell: Tell = _nothing):
        """
        Args:
            budget: seconds.
            tell: hears of every iteration.
        """
        if not budget > 0:
            raise ValueError(f"There are {budget:g} seconds to train for: give the training more minutes.")
        self._budget = budget
        self._tell = tell
        self._since = 0.0
        self.seconds, self.iterations = 0.0, 0

    @property
    def share(self) -> float:
        """Of the time, in [0, 1]."""
        return min(1.0, self.seconds / self._budget)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {"seconds": self.seconds, "iterations": self.iterations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.seconds, self.iterations = state["seconds"], state["iterations"]

    def before_train(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()
        self._move()

    def _move(self) -> None:
        # However little time there is, the warmup takes its iterations: without it trainings diverge.
        solver = self.trainer.cfg.SOLVER
        warm = self.iterations >= solver.WARMUP_ITERS
        move_schedule(self.trainer, self.share if warm else min(self.share, self.iterations / solver.MAX_ITER))

    def after_step(self) -> None:
        """Count what the iteration and the hooks before this one took.

        Raises:
            TrainingStopped: the time is over; the final checkpoint is saved.
        """
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        self.iterations += 1
        self._move()
        self._tell(self.share, {name: value for name, (value, _) in self.trainer.storage.latest().items()})
        if self.share >= 1:
            self.trainer.checkpointer.save("model_final", iteration=self.trainer.iter)
            raise TrainingStopped


class _SpeedHook(HookBase):
    """Ends a training once its speed is known."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def after_step(self) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) > _MEASURED:
            raise TrainingStopped


def measure_speed(cfg: CfgNode) -> float:
    """Seconds that an iteration takes on this machine; nothing is kept of what is trained meanwhile."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD, cfg.SOLVER.EARLY_STOPPING = (), 0, 0
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_ITER = sys.maxsize, SCHEDULE_LENGTH
    trainer, hook = Trainer(cfg), _SpeedHook()
    trainer.register_hooks([hook])
    trainer.train()
    times = hook.times[_WARMUP:]
    return _SLOWER_LATER * (times[-1] - times[0]) / (len(times) - 1)


def train_for(cfg: CfgNode, seconds: float, tell: Tell = _nothing) -> Path:
    """Train for so many seconds, from where an interrupted training in OUTPUT_DIR stopped.

    SOLVER.MAX_ITER is only the unit in which the schedule counts.

    Returns:
        The checkpoint to use: the final one, or the best one of a training that stopped because nothing improved.
    """
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    trainer, hook = Trainer(cfg), TimeBudgetHook(seconds, tell)
    trainer.register_hooks([hook])
    trainer.max_iter = sys.maxsize
    trainer.resume_or_load(resume=True)
    if hook.share < 1:
        with suppress(TrainingStopped):
            trainer.train()
    folder = Path(cfg.OUTPUT_DIR)
    best = folder / "model_best.pth"
    return best if hook.share < 1 and best.is_file() else folder / "model_final.pth"
