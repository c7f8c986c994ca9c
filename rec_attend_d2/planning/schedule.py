"""How the minutes of a training are divided: learning, evaluations on the way, and what comes after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from .plan import Setting

# Evaluations on the way, and so many of them without a better result end a training.
EVALUATIONS, PATIENCE = 6, 3
# Share of the time that they may take together.
_EVALUATION_SHARE = 0.12
# Seconds that one picture takes on one thread: a part of its own, and per million network pixels. Measured on nuclei
# and cells; what is saved on a faster machine is left over.
_PICTURE_SECONDS, _PIXEL_SECONDS = 0.05, 0.8
# What comes after learning besides: drawing and writing the report.
_REPORT_SECONDS = 15.0
# Learning gets this share of the time at least.
_LEARNING_SHARE = 0.5


@dataclass(frozen=True)
class Schedule:
    """How time is divided.

    Attributes:
        learning: seconds for training, evaluations on the way included.
        settings: that follow, by config key.
    """

    learning: float
    settings: dict[str, Setting]


def make_schedule(
    seconds: float,
    seconds_per_iteration: float,
    validation_sizes: Sequence[tuple[int, int]],
    scale: float,
    threshold_pictures: int,
) -> Schedule:
    """Divide what is left of a training's time.

    Args:
        seconds: left.
        seconds_per_iteration: as measured on this machine.
        validation_sizes: (H, W) of the validation pictures, pixels of the file.
        scale: network pixels per pixel of the file.
        threshold_pictures: that are counted to choose the score threshold, each for every threshold anew.
    """
    pixels = sum(height * width for height, width in validation_sizes) * scale**2 / 1e6
    evaluation = len(validation_sizes) * _PICTURE_SECONDS + pixels * _PIXEL_SECONDS
    thresholds = evaluation / len(validation_sizes) * threshold_pictures
    learning = max(_LEARNING_SHARE * seconds, seconds - thresholds - 1.3 * evaluation - _REPORT_SECONDS)
    evaluations = min(EVALUATIONS, int(_EVALUATION_SHARE * learning / evaluation))
    iterations = max(1, int((learning - evaluations * evaluation) / seconds_per_iteration))
    speed = f"about {iterations} iterations of {seconds_per_iteration:.2g} s fit on this machine"
    settings = {}
    if evaluations > 1:
        period = max(1, iterations // evaluations)
        settings["TEST.EVAL_PERIOD"] = Setting(period, f"{speed}, with {evaluations} evaluations")
        settings["SOLVER.CHECKPOINT_PERIOD"] = Setting(period, "an interrupted training goes on from the last of these")
        if evaluations > PATIENCE:
            settings["SOLVER.EARLY_STOPPING"] = Setting(
                PATIENCE, "it stops after so many evaluations without a better one"
            )
    else:
        period = max(1, iterations // EVALUATIONS)
        settings["SOLVER.CHECKPOINT_PERIOD"] = Setting(period, f"{speed}; evaluations on the way would take too long")
    return Schedule(learning, settings)


def without_schedule(settings: dict[str, Setting]) -> dict[str, Setting]:
    """Settings without those that follow from the machine's speed and the minutes, unless they were set by hand."""
    machine = ("TEST.EVAL_PERIOD", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.EARLY_STOPPING")
    return {key: item for key, item in settings.items() if key not in machine or item.why == Setting.why}
