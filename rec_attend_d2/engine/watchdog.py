"""Warnings about trainings that run but learn nothing, each with what helps."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from detectron2.engine import HookBase
from torch import nn

from ..modeling.image_model import STATISTICS_PERIOD

logger = logging.getLogger(__name__)

# A problem has to be seen at so many readings of the statistics in a row, which a model that has just started to learn
# does not reach.
READINGS = 25
# Below them overlaps, pixels and scores count as none.
_NO_OVERLAP = 1e-3
_NO_PIXELS = 1e-2
_NO_SCORE = 1e-4


@dataclass(frozen=True)
class Problem:
    """Something that statistics show.

    Attributes:
        needs: statistics without which it can't be seen.
        is_seen: whether the statistics (by name, without "train/") show it.
        message: what is wrong and what helps.
    """

    needs: tuple[str, ...]
    is_seen: Callable[[Mapping[str, float]], bool]
    message: str


PROBLEMS = (
    Problem(
        ("box_iou",),
        lambda values: values["box_iou"] < _NO_OVERLAP,
        "no proposed box overlaps a true object. Check that objects are where their annotations say "
        "(tools/visualize_steps.py draws the truth); then lower SOLVER.BASE_LR, or start with larger boxes "
        "(MODEL.REC_ATTEND.BOX_PROPOSER.INITIAL_SIZE).",
    ),
    Problem(
        ("box_side",),
        lambda values: values["box_side"] < 1,
        "the proposed boxes are smaller than a pixel. Lower SOLVER.BASE_LR, start with larger boxes "
        "(MODEL.REC_ATTEND.BOX_PROPOSER.INITIAL_SIZE), or (the paper's model) set MODEL.REC_ATTEND.BOX_PROPOSER.SQUASH "
        "to True.",
    ),
    Problem(
        ("box_spread",),
        lambda values: values["box_spread"] < _NO_PIXELS,
        "all proposed boxes are equal, whatever the image and the step. Lower SOLVER.BASE_LR, and check that "
        "the images' contrast (and, of the paper's model, MODEL.REC_ATTEND.BOX_PROPOSER.INPUTS) let objects be seen.",
    ),
    Problem(
        ("score_spread",),
        lambda values: values["score_spread"] < _NO_SCORE,
        "all scores are equal, so that the model can't know when to stop. Lower SOLVER.BASE_LR or "
        "(the paper's model) raise MODEL.REC_ATTEND.LOSS.SCORE_WEIGHT and, where every image has "
        "MODEL.REC_ATTEND.TIME_STEPS objects, TIME_STEPS: no step shows what stopping is.",
    ),
)


class WatchdogHook(HookBase):
    """Warns once of each problem that lasts. Reads what models log anyway, every 20 iterations; main process only."""

    def __init__(self, images_per_batch: int):
        """
        Args:
            images_per_batch: of this process; a single box is equal to itself and no problem.
        """
        self._several = images_per_batch > 1
        self._seen = dict.fromkeys(PROBLEMS, 0)

    def after_step(self) -> None:
        """Judge new statistics, if there are some."""
        if self.trainer.iter % STATISTICS_PERIOD != 0:
            return
        values = {
            name.removeprefix("train/"): value
            for name, (value, iteration) in self.trainer.storage.latest().items()
            if name.startswith("train/") and iteration == self.trainer.iter
        }
        for problem, readings in self._seen.items():
            if not all(name in values for name in problem.needs):
                continue
            if any(name.endswith("_spread") for name in problem.needs) and not self._several:
                continue
            # Once warned of, a problem's count stays beyond the limit.
            lasts = problem.is_seen(values) or readings >= READINGS
            self._seen[problem] = readings + 1 if lasts else 0
            if self._seen[problem] == READINGS:
                logger.warning("For %d iterations %s", READINGS * STATISTICS_PERIOD, problem.message)


@contextmanager
def explaining_divergence(model: nn.Module) -> Iterator[None]:
    """Whatever fails in the block because weights are no longer finite is explained as a loss that is not finite.

    Raises:
        FloatingPointError: a loss or a weight is not finite.
    """
    try:
        yield
    except FloatingPointError as error:
        raise explain_infinite_loss(error) from None
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, ValueError) as error:
        # Boxes, pictures and matchings made of such numbers fail before a loss does.
        broken = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
        if broken is None and "bad box" not in str(error):
            raise
        what = FloatingPointError(f"The training diverged ({type(error).__name__}: {error}).")
        raise explain_infinite_loss(what, f"the weight {broken}" if broken else "boxes") from None


def explain_infinite_loss(error: FloatingPointError, otherwise: str = "their sum") -> FloatingPointError:
    """Detectron2's error about a loss that is not finite, with the losses (``otherwise`` if unknown) and what helps."""
    names = ", ".join(re.findall(r"'(\w+)': [^,}]*(?:nan|inf)", str(error)))
    return FloatingPointError(
        f"{error}\nNot finite: {names or otherwise}. Train anew, without --resume, with a lower SOLVER.BASE_LR, a "
        "longer SOLVER.WARMUP_ITERS or a smaller SOLVER.CLIP_GRADIENTS.CLIP_VALUE; MODEL.WEIGHTS with the last "
        "checkpoint keeps what was learned. With SOLVER.AMP.ENABLED try without. If it fails at the very first "
        "iterations, look for empty or broken images and masks."
    )
