"""Ending a training that no longer gets better (SOLVER.EARLY_STOPPING)."""

import logging
import math

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.common.checkpoint import Checkpointer

logger = logging.getLogger(__name__)


class TrainingStopped(BaseException):
    """Leaves the training loop early. No Exception, because Detectron2 logs those as failures."""


def read_patience(cfg: CfgNode) -> int:
    """SOLVER.EARLY_STOPPING; 0 = train to the end.

    Raises:
        ValueError: it is negative, or there are no evaluations that it could count.
    """
    patience = cfg.SOLVER.EARLY_STOPPING
    if patience < 0:
        raise ValueError(f"SOLVER.EARLY_STOPPING is {patience}; give 0 (never) or a number of evaluations.")
    if patience > 0 and not (cfg.TEST.BEST_METRIC and cfg.TEST.EVAL_PERIOD > 0 and cfg.DATASETS.TEST):
        raise ValueError(
            f"SOLVER.EARLY_STOPPING is {patience} evaluations, but without TEST.BEST_METRIC, TEST.EVAL_PERIOD and "
            "DATASETS.TEST there are none to judge by: set them, or SOLVER.EARLY_STOPPING to 0."
        )
    return patience


def read_result(storage: EventStorage, metric: str) -> float:
    """The latest value of ``metric``, the name being that of TEST.BEST_METRIC.

    Raises:
        ValueError: there is no such result.
    """
    latest = storage.latest()
    if metric not in latest:
        names = ", ".join(sorted(name for name in latest if "/" in name)) or "none"
        raise ValueError(f"TEST.BEST_METRIC '{metric}' is no result of the evaluation. There are: {names}.")
    return latest[metric][0]


class EarlyStopping(HookBase):
    """Ends training after so many evaluations without a better one. Goes last of all hooks, in every process."""

    def __init__(self, checkpointer: Checkpointer, metric: str, period: int, patience: int):
        """
        Args:
            checkpointer: writes the final checkpoint.
            metric: name of the result whose highest value is the best.
            period: iterations between two evaluations, at least 1.
            patience: evaluations without a new best value, at least 1.
        """
        self._checkpointer = checkpointer
        self._metric = metric
        self._period = period
        self._patience = patience
        self._best = -math.inf
        # Iterations done at the best evaluation.
        self._best_after = 0

    def state_dict(self) -> dict:
        """What a resumed training needs."""
        return {"best": self._best, "best_after": self._best_after}

    def load_state_dict(self, state: dict) -> None:
        """Inverse of :meth:`state_dict`."""
        self._best, self._best_after = state["best"], state["best_after"]

    def _is_over(self, done: int) -> bool:
        value = read_result(self.trainer.storage, self._metric)
        if value > self._best:  # false for NaN
            self._best, self._best_after = value, done
        return done - self._best_after >= self._patience * self._period

    def after_step(self) -> None:
        """Judge the evaluation, where one was due.

        Raises:
            TrainingStopped: in all processes, once patience is at its end; the final checkpoint is written.
        """
        done = self.trainer.iter + 1
        if done % self._period != 0 or done == self.trainer.max_iter:
            return
        over = self._is_over(done) if comm.is_main_process() else False
        if any(comm.all_gather(over)):
            logger.info(
                "Stopping after %d iterations: %s was %.5f after %d and not better in %d evaluations since "
                "(SOLVER.EARLY_STOPPING).",
                *(done, self._metric, self._best, self._best_after, self._patience),
            )
            self._checkpointer.save("model_final", iteration=self.trainer.iter)
            raise TrainingStopped
