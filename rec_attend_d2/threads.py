"""How many CPU threads a process computes with, chosen by measuring.

Two OpenMP threads are twice as fast as one on free cores. On busy cores they are up to 20 times slower: both wait,
spinning, for the one that has no core. (Waiting asleep, OMP_WAIT_POLICY=PASSIVE, avoids that, but then two threads are
hardly faster than one anywhere.) So what is fastest now is found by trying. Whoever sets OMP_NUM_THREADS has chosen.
"""

import os
import time
from collections.abc import Callable, Sequence

import torch

USER_VARIABLE = "OMP_NUM_THREADS"
# More threads have to be faster by this factor: less is within the noise of a short measurement.
_WORTHWHILE = 1.15
# Seconds that a number of threads is tried for, if a pass does not take longer.
_TRIAL = 0.25
# A stack of convolutions like those of the networks: batch and channels, side of the maps in pixels, layers.
_BATCH, _CHANNELS, _SIDE, _LAYERS = 4, 16, 64, 2


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_to_be_chosen(device: str) -> bool:
    """Whether there is a choice: a model on the CPU, more than one core, and a user who did not choose."""
    return device.startswith("cpu") and USER_VARIABLE not in os.environ and usable_cores() > 1


def seconds_per_pass(threads: int) -> float:
    """Seconds that a forward and backward pass takes with so many threads, which stay set.

    Backward passes on the CPU run in the thread that calls them, so they have its number of threads. No random number
    is drawn: a training that measures goes on as one that does not.
    """
    torch.set_num_threads(threads)
    images = torch.ones(_BATCH, _CHANNELS, _SIDE, _SIDE)
    weight = torch.full((_CHANNELS, _CHANNELS, 3, 3), 0.01, requires_grad=True)

    def one_pass() -> None:
        maps = images
        for _ in range(_LAYERS):
            maps = torch.nn.functional.conv2d(maps, weight, padding=1).relu()
        torch.autograd.grad(maps.sum(), weight)

    with torch.enable_grad():
        one_pass()  # starts the threads
        start, passes, elapsed = time.perf_counter(), 0, 0.0
        while elapsed < _TRIAL:
            one_pass()
            passes, elapsed = passes + 1, time.perf_counter() - start
    return elapsed / passes


def candidates(cores: int) -> list[int]:
    """Numbers of threads to try, in order: powers of two below the number of cores, and that number."""
    return [2**power for power in range(cores.bit_length()) if 2**power < cores] + [cores]


def fastest(counts: Sequence[int], seconds: Callable[[int], float]) -> int:
    """The number of threads after which more do not pay any more.

    Args:
        counts: increasing.
        seconds: what a pass takes with so many threads.
    """
    best, least = counts[0], seconds(counts[0])
    for count in counts[1:]:
        taken = seconds(count)
        if taken * _WORTHWHILE > least:
            break
        best, least = count, taken
    return best


def choose_threads(device: str, seconds: Callable[[int], float] = seconds_per_pass) -> int | None:
    """Measure for about a second, and compute with the fastest number of threads from now on.

    Args:
        device: MODEL.DEVICE.
        seconds: see :func:`fastest`.

    Returns:
        The number; None where there is nothing to choose, see :func:`is_to_be_chosen`.
    """
    if not is_to_be_chosen(device):
        return None
    chosen = fastest(candidates(usable_cores()), seconds)
    torch.set_num_threads(chosen)
    return chosen


def describe_choice(chosen: int) -> str:
    """The line about a choice that tools print or log."""
    return f"CPU threads: {chosen} of {usable_cores()}, the fastest just now ({USER_VARIABLE} sets another number)."


def choose_and_say(device: str, say: Callable[[str], object]) -> None:
    """:func:`choose_threads`, and ``say`` what was chosen, if there was a choice."""
    chosen = choose_threads(device)
    if chosen is not None:
        say(describe_choice(chosen))
