"""How long a model may train, and what that makes of its schedule."""

import statistics
import time
from collections import deque
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine.hooks import LRScheduler

CLOCKS = ("wall", "cpu")
# At most this share of a training warms up.
LARGEST_WARMUP = 0.1
# An iteration that takes so many times the median of the last ones was not computing all the time: the machine slept,
# or the process was stopped. It counts as the median.
STALL_FACTOR = 10.0
STALL_WINDOW = 50
STALL_KNOWN = 5


@dataclass(frozen=True)
class Budget:
    """What a training may use: one of the two, the other is None.

    Attributes:
        minutes: of training iterations; evaluations and checkpoints do not count.
        iterations: of the optimizer.
        clock: of the minutes, one of CLOCKS: "wall", or "cpu" (of all threads of the training process together), which
            other work on the machine does not change.
    """

    minutes: float | None = None
    iterations: int | None = None
    clock: str = "wall"

    def __post_init__(self) -> None:
        given = [limit for limit in (self.minutes, self.iterations) if limit is not None]
        if len(given) != 1 or given[0] <= 0:
            raise ValueError(f"A budget is either --minutes or --iterations, more than 0; this one is {self}.")
        if self.clock not in CLOCKS:
            raise ValueError(f"The clock of a budget is one of {', '.join(CLOCKS)}; this one is {self}.")

    def share(self, seconds: float, iterations: int) -> float:
        """Share of the budget, in [0, 1], that so much training uses."""
        used = seconds / (60 * self.minutes) if self.minutes else iterations / self.iterations  # type: ignore[operator]
        return min(1.0, used)

    def expected_iterations(self, seconds_per_iteration: float) -> int:
        """Iterations that fit into the minutes, at least 1."""
        assert self.minutes is not None
        return max(1, round(60 * self.minutes / seconds_per_iteration))

    def describe(self) -> str:
        """In words."""
        if self.minutes is not None:
            return f"{self.minutes:g} {'CPU ' if self.clock == 'cpu' else ''}minutes of training iterations"
        return f"{self.iterations} iterations"


def fit_schedule(cfg: CfgNode, iterations: int) -> None:
    """Squeeze or stretch the learning rate's schedule of a config to so many iterations, in place.

    Steps keep their place relative to SOLVER.MAX_ITER. A warm-up stays as long as it is, up to a share of
    :data:`LARGEST_WARMUP`. The staircase of this project becomes Detectron2's of the same number of steps, which can
    tell the rate at any point of a training.
    """
    solver = cfg.SOLVER
    ratio = iterations / solver.MAX_ITER
    if solver.LR_SCHEDULER_NAME == "StaircaseExponentialLR":
        solver.LR_SCHEDULER_NAME = "WarmupStepWithFixedGammaLR"
        solver.NUM_DECAYS = (solver.MAX_ITER - 1) // solver.DECAY_PERIOD
    solver.STEPS = tuple(max(1, round(step * ratio)) for step in solver.STEPS if step < solver.MAX_ITER)
    solver.WARMUP_ITERS = min(solver.WARMUP_ITERS, int(LARGEST_WARMUP * iterations))
    solver.MAX_ITER = iterations


class Stopwatch:
    """Seconds of repeated work by the wall clock and of the CPU, without stalls (see :data:`STALL_FACTOR`).

    Attributes:
        stalls: seconds left out so far.
    """

    def __init__(self) -> None:
        self.stalls = 0.0
        self._last: deque[float] = deque(maxlen=STALL_WINDOW)
        self._start = (0.0, 0.0)

    def start(self) -> None:
        """Work begins."""
        self._start = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float]:
        """Work ends: its seconds, and those of all threads of this process."""
        wall, cpu = (
            now - before for now, before in zip((time.perf_counter(), time.process_time()), self._start, strict=True)
        )
        return self.without_stall(wall), cpu

    def without_stall(self, seconds: float) -> float:
        """``seconds``, or the median of the last ones where it is a stall."""
        median = statistics.median(self._last) if len(self._last) >= STALL_KNOWN else seconds
        counted = median if seconds > STALL_FACTOR * median else seconds
        self.stalls += seconds - counted
        self._last.append(counted)
        return counted


class Spent(HookBase):
    """What a training has used of its budget; it is part of the checkpoints, so that a resumed training goes on there.

    Attributes:
        budget: the limit.
        seconds: of the iterations so far, by the budget's clock.
        cpu_seconds: of the same, of all threads of this process together.
        stalls: seconds of the wall clock that do not count, see :data:`STALL_FACTOR`.
        iterations: so far.
        peak_memory: largest memory in bytes that training alone needed; 0 = not known yet.
    """

    _NUMBERS = ("seconds", "cpu_seconds", "stalls", "iterations", "peak_memory")

    def __init__(self, budget: Budget):
        self.budget = budget
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.stalls = 0.0
        self.iterations = 0
        self.peak_memory = 0

    @property
    def share(self) -> float:
        """Of the budget, in [0, 1]."""
        return self.budget.share(self.seconds, self.iterations)

    def state_dict(self) -> dict:
        """What a resumed training needs."""
        return {name: getattr(self, name) for name in self._NUMBERS}

    def load_state_dict(self, state: dict) -> None:
        """Inverse of :meth:`state_dict`."""
        for name in self._NUMBERS:
            setattr(self, name, state[name])


class BudgetLRScheduler(LRScheduler):
    """Detectron2's hook; the schedule stands at the share of the budget that is used, however fast iterations are."""

    def __init__(self, spent: Spent):
        super().__init__()
        self._spent = spent

    def after_step(self) -> None:
        """Set the learning rate of the next iteration."""
        # Of an iteration budget the share counts the present iteration only later.
        share = self._spent.budget.share(self._spent.seconds, self.trainer.iter + 1)
        self.scheduler.last_epoch = round(share * self.trainer.max_iter) - 1
        super().after_step()
