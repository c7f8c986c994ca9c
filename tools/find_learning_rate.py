#!/usr/bin/env python
"""Find a learning rate: train while it grows from tiny to huge, and see where the loss falls and where it explodes.

(A learning-rate range test, Smith 2017.)

python tools/find_learning_rate.py --config-file configs/Nuclei/fast.yaml --output output/rate [KEY VALUE ...]

Writes learning_rate.json (rates, losses, suggestion) and learning_rate.png, and prints a table. For a schedule with a
warmup and a decay the suggestion is the highest rate, SOLVER.BASE_LR.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine.hooks import LRScheduler as LRSchedulerHook
from detectron2.utils.env import seed_all_rng
from matplotlib.figure import Figure
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from rec_attend_d2.config import load_config
from rec_attend_d2.data import register_datasets
from rec_attend_d2.engine import Trainer
from rec_attend_d2.engine.early_stopping import TrainingStopped
from rec_attend_d2.engine.hooks import ScheduledSamplingHook, SeedHook, ThreadsHook
from rec_attend_d2.whole_files import write_json

ROWS = 12
# Share of the past in the smoothed loss.
SMOOTHING = 0.9
# The loss has exploded where, smoothed, it is above its lowest value by so many times its fall until then.
EXPLOSION = 2.0
# Iterations in the beginning that tell nothing: the smoothed loss is still noise.
_SETTLING = 10


@dataclass(frozen=True)
class RangeTest:
    """Outcome of a range test.

    Attributes:
        rates: [n] learning rate of every iteration.
        losses: [n] total loss of every iteration, before its step.
    """

    rates: Sequence[float]
    losses: Sequence[float]

    @property
    def smoothed(self) -> np.ndarray:
        """[n] exponential mean of the losses, with its start corrected as Adam's."""
        mean, result = 0.0, []
        for count, loss in enumerate(self.losses, start=1):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            result.append(mean / (1 - SMOOTHING**count))
        return np.array(result)

    def steepest(self) -> float:
        """Learning rate at which the smoothed loss falls fastest per factor of the rate.

        Raises:
            ValueError: there are too few iterations, or the loss falls nowhere.
        """
        smoothed = self.smoothed
        lowest = int(np.argmin(smoothed))
        if len(smoothed) < 2 * _SETTLING or lowest <= _SETTLING:
            raise ValueError(
                f"The loss did not fall in {len(smoothed)} iterations: take a smaller --lowest, or more --iterations."
            )
        slope = np.gradient(smoothed, np.log(self.rates))
        return float(self.rates[_SETTLING + int(np.argmin(slope[_SETTLING : lowest + 1]))])

    def exploded_at(self) -> float | None:
        """Learning rate at which the smoothed loss left its lowest value for good; None if it did not explode."""
        smoothed = self.smoothed
        if has_exploded(smoothed):
            return float(self.rates[int(np.argmin(smoothed))])
        return None

    def suggestion(self) -> float:
        """A tenth of the rate at which the loss explodes, but at most the steepest."""
        limit = self.exploded_at()
        return self.steepest() if limit is None else min(self.steepest(), limit / 10)


def has_exploded(smoothed: Sequence[float] | np.ndarray) -> bool:
    """Whether smoothed losses have risen above their lowest by :data:`EXPLOSION` times their fall, or to infinity."""
    if not math.isfinite(smoothed[-1]):
        return True
    if len(smoothed) <= _SETTLING:
        return False
    settled = np.asarray(smoothed[_SETTLING:])
    lowest = int(np.argmin(settled))
    fall = max(settled[: lowest + 1].max() - settled[lowest], abs(settled[lowest]) * 0.05)
    return bool(settled[-1] - settled[lowest] > EXPLOSION * fall)


class _Recorder(HookBase):
    """Keeps rates and losses, and ends the test where the loss explodes."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []

    def after_step(self) -> None:
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])
        self.losses.append(self.trainer.storage.latest()["total_loss"][0])
        if has_exploded(RangeTest(self.rates, self.losses).smoothed):
            raise TrainingStopped


class RangeTestTrainer(Trainer):
    """Trains with a learning rate that grows exponentially from SOLVER.BASE_LR to ``highest``; writes nothing."""

    def __init__(self, cfg: CfgNode, highest: float):
        """
        Args:
            cfg: SOLVER.BASE_LR is the lowest rate, SOLVER.MAX_ITER the number of iterations.
            highest: the last rate.
        """
        self._recorder = _Recorder()
        super().__init__(cfg)
        self.scheduler = self._ramp(self.optimizer, highest / cfg.SOLVER.BASE_LR)

    def _ramp(self, optimizer: Optimizer, growth: float) -> LRScheduler:
        last = max(1, self.cfg.SOLVER.MAX_ITER - 1)
        return LambdaLR(optimizer, lambda iteration: growth ** (iteration / last))

    def build_hooks(self) -> list:
        """Only what a training step needs."""
        needed = ThreadsHook | SeedHook | LRSchedulerHook | ScheduledSamplingHook
        return [self._recorder, *(hook for hook in super().build_hooks() if isinstance(hook, needed))]

    def build_writers(self) -> list:
        """None."""
        return []

    def run(self) -> RangeTest:
        """Run the test. It ends where the loss explodes."""
        try:
            self.train()
        except FloatingPointError:
            self._recorder.rates.append(self.optimizer.param_groups[0]["lr"])
            self._recorder.losses.append(math.inf)
        return RangeTest(self._recorder.rates, self._recorder.losses)


def draw_range_test(result: RangeTest) -> Figure:
    """Loss over learning rate, with the suggestion."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="total loss")
    axes.plot(result.rates, result.losses, alpha=0.3, label="each iteration")
    axes.plot(result.rates, result.smoothed, label="smoothed")
    axes.axvline(result.suggestion(), linestyle="--", color="C2", label=f"suggestion {result.suggestion():.2g}")
    finite = result.smoothed[np.isfinite(result.smoothed)]
    low, high = finite.min(), max(finite[: _SETTLING + 1].max(), np.percentile(finite, 90))
    axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--lowest", type=float, default=1e-6, help="first learning rate (default %(default)s)")
    parser.add_argument("--highest", type=float, default=1.0, help="last learning rate (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=200, help="optimizer steps (default %(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    arguments = parser.parse_args()
    if not 0 < arguments.lowest < arguments.highest < math.inf:
        parser.error(f"--lowest {arguments.lowest} and --highest {arguments.highest}: give 0 < lowest < highest.")
    if arguments.iterations < 20:
        parser.error(f"--iterations {arguments.iterations}: give at least 20.")
    return arguments


def run_test(arguments: argparse.Namespace) -> RangeTest:
    """Run the range test that the command line asks for."""
    cfg = load_config(arguments.config_file, arguments.opts)
    # Nothing is evaluated. The rate is the ramp's, with all its iterations after any warmup.
    own = ["DATASETS.TEST", (), "TEST.EVAL_PERIOD", 0, "SOLVER.EARLY_STOPPING", 0, "OUTPUT_DIR", str(arguments.output)]
    own += ["SOLVER.BASE_LR", arguments.lowest, "SOLVER.MAX_ITER", arguments.iterations, "SOLVER.WARMUP_ITERS", 0]
    cfg.merge_from_list(own)
    register_datasets(cfg)
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    trainer = RangeTestTrainer(cfg, arguments.highest)
    trainer.resume_or_load(resume=False)
    return trainer.run()


def table(result: RangeTest) -> str:
    """Some of the iterations as lines of text."""
    count = len(result.rates)
    shown = sorted({round(row * (count - 1) / (ROWS - 1)) for row in range(ROWS)})
    lines = [f"{result.rates[i]:>12.2e}  {result.losses[i]:>10.4f}  {result.smoothed[i]:>10.4f}" for i in shown]
    return "\n".join([f"{'rate':>12}  {'loss':>10}  {'smoothed':>10}", *lines])


def write(result: RangeTest, folder: Path) -> None:
    """Write learning_rate.json and learning_rate.png."""
    content = {
        "suggestion": result.suggestion(),
        "steepest": result.steepest(),
        "exploded_at": result.exploded_at(),
        "rates": result.rates,
        "losses": result.losses,
    }
    write_json(folder / "learning_rate.json", content)
    draw_range_test(result).savefig(folder / "learning_rate.png", dpi=100)


def main() -> None:
    """Test, write and print."""
    arguments = parse_arguments()
    try:
        result = run_test(arguments)
        print(table(result))
        write(result, arguments.output)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"{error}")
    limit = result.exploded_at()
    exploded = "the loss does not explode" if limit is None else f"the loss rises from {limit:.2g} on"
    print(f"Steepest fall at {result.steepest():.2g}; {exploded}. Suggestion: SOLVER.BASE_LR {result.suggestion():.2g}")
    print(f"{arguments.output}: learning_rate.json, learning_rate.png")


if __name__ == "__main__":
    main()
