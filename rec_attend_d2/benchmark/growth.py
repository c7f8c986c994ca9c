"""How time and memory grow with the number of steps and with the image: exponents fitted to measured values."""

from collections.abc import Callable, Sequence

import numpy as np
from detectron2.config import CfgNode

from .batches import is_of_this_project

TIME_STEPS = (5, 10, 20, 30, 40)
# Multiples of 32, which the networks need; 112 is none.
SIDES = (128, 192, 224, 320, 448)


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent p of ``value ~ size^p``, by least squares on the logarithms.

    Raises:
        ValueError: fewer than two sizes, or a size or value that is not positive.
    """
    if len(set(sizes)) < 2 or min(*sizes, *values) <= 0:
        raise ValueError(f"An exponent needs two different sizes, and values above 0; got {sizes} and {values}.")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def with_time_steps(cfg: CfgNode, steps: int) -> CfgNode:
    """The config with T = ``steps``, in training and at inference."""
    cfg = cfg.clone()
    cfg.MODEL.REC_ATTEND.TIME_STEPS = steps
    return cfg


def with_side(cfg: CfgNode, side: int) -> CfgNode:
    """The config for square images of ``side`` pixels."""
    cfg = cfg.clone()
    cfg.INPUT.IMAGE_SIZE = [side, side]
    return cfg


def measure_growth(
    cfg: CfgNode,
    measure: Callable[[CfgNode], dict[str, float]],
    time_steps: Sequence[int] = TIME_STEPS,
    sides: Sequence[int] = SIDES,
) -> dict[str, dict]:
    """Values at growing T and at growing images, with the fitted exponents.

    Args:
        cfg: the config.
        measure: from a config to values by name.
        time_steps: of the first series, which only models with time steps have.
        sides: of the second one, pixels; its exponents are of the number of pixels, side * side.

    Returns:
        By what grows ("time steps", "pixels"): ``rows``, each with ``size`` and the values, and ``exponents`` by name.
    """
    series: dict[str, dict[float, CfgNode]] = {}
    if is_of_this_project(cfg) and cfg.MODEL.META_ARCHITECTURE != "RecAttendPreprocessor":
        series["time steps"] = {steps: with_time_steps(cfg, steps) for steps in time_steps}
    series["pixels"] = {side * side: with_side(cfg, side) for side in sides}
    result = {}
    for name, configs in series.items():
        rows = [{"size": size, **measure(changed)} for size, changed in configs.items()]
        names = [key for key in rows[0] if key != "size"]
        sizes = [row["size"] for row in rows]
        exponents = {key: fit_exponent(sizes, [row[key] for row in rows]) for key in names}
        result[name] = {"rows": rows, "exponents": exponents}
    return result
