"""Stopwatches for CPU and CUDA, and repeated measurements."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch


class Stopwatch(Protocol):
    """Takes marks in time, and tells what lies between two of them."""

    def mark(self) -> Any:
        """Now, as seen by the device that computes."""
        ...

    def wait(self) -> None:
        """Return once everything before the last mark is computed; needed before :meth:`seconds`."""
        ...

    def seconds(self, start: Any, end: Any) -> float:
        """Time between two marks."""
        ...


class CPUStopwatch:
    """Marks are readings of the wall clock."""

    def mark(self) -> float:
        """The time in seconds."""
        return time.perf_counter()

    def wait(self) -> None:
        """Nothing to wait for."""

    def seconds(self, start: float, end: float) -> float:
        """Time between two marks."""
        return end - start


class CUDAStopwatch:
    """Marks are events in the current stream, so that taking one waits for nothing.

    What is between two marks is the time in which the device got from one to the other, idle or not.
    """

    def mark(self) -> "torch.cuda.Event":
        """A recorded event."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize()

    def seconds(self, start: "torch.cuda.Event", end: "torch.cuda.Event") -> float:
        """Time between two events."""
        return start.elapsed_time(end) / 1000


def stopwatch_for(device: str | torch.device) -> Stopwatch:
    """The stopwatch of a device, "cpu" or "cuda"."""
    return CUDAStopwatch() if torch.device(device).type == "cuda" else CPUStopwatch()


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs.

    Attributes:
        median, q1, q3: median and quartiles, seconds.
        repeats: number of runs.
    """

    median: float
    q1: float
    q3: float
    repeats: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Of a list of times, which must not be empty."""
        q1, median, q3 = (float(value) for value in np.percentile(seconds, [25, 50, 75]))
        return cls(median, q1, q3, len(seconds))


def measure(run: Callable[[], Any], stopwatch: Stopwatch, repeats: int, warmup: int) -> Timing:
    """Time of ``run``, after ``warmup`` runs that do not count. The device finishes each run before the next."""
    times = []
    for number in range(warmup + repeats):
        stopwatch.wait()
        start = stopwatch.mark()
        run()
        end = stopwatch.mark()
        stopwatch.wait()
        if number >= warmup:
            times.append(stopwatch.seconds(start, end))
    return Timing.of(times)
