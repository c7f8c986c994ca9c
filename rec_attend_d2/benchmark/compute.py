"""Counted floating point operations, and what the machine can do at most."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .timing import measure, stopwatch_for

# Sides of the square matrices whose product is timed.
MATRIX_SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
PEAK_REPEATS = 7


def count_flops(run: Callable[[], Any]) -> int:
    """Floating point operations of one call, all time steps together, by torch.utils.flop_counter.

    It counts matrix products and convolutions, forward and backward, a multiplication and an addition as two
    operations; element-wise work is not counted.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def matmul_peak(device: str | torch.device) -> dict[str, float]:
    """Operations per second of float32 matrix products by the matrices' side, with the threads that are set.

    Each is the median of several runs; the machine's peak is the best of them.
    """
    kind = torch.device(device).type
    stopwatch = stopwatch_for(device)
    rates = {}
    for side in MATRIX_SIDES[kind]:
        a, b = torch.rand(2, side, side, device=device)
        out = torch.empty_like(a)
        timing = measure(partial(torch.mm, a, b, out=out), stopwatch, PEAK_REPEATS, warmup=2)
        rates[str(side)] = 2 * side**3 / timing.median
    return rates
