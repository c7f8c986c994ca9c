"""What both kinds of benchmark measure: seconds, floating point operations, memory, and the machine they ran on."""

import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

MEGABYTE = 1e6
# Sides of the square matrices whose product is timed.
MATRIX_SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
PEAK_REPEATS = 7


def timing(seconds: list[float]) -> dict[str, float]:
    """``median``, quartiles ``q1`` and ``q3`` (seconds) and number (``repeats``) of repeated runs, at least one."""
    q1, median, q3 = (float(value) for value in np.percentile(seconds, [25, 50, 75]))
    return {"median": median, "q1": q1, "q3": q3, "repeats": len(seconds)}


def on_cuda(device: str | torch.device) -> bool:
    """Whether it is a CUDA device, which computes while the program goes on."""
    return torch.device(device).type == "cuda"


def seconds_of(run: Callable[[], Any], device: str | torch.device) -> float:
    """Wall clock seconds of one call, from an idle device until the device has finished it."""
    if on_cuda(device):
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if on_cuda(device):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(run: Callable[[], Any], device: str | torch.device, repeats: int, warmup: int) -> dict[str, float]:
    """:func:`timing` of ``run``, after ``warmup`` runs that do not count."""
    return timing([seconds_of(run, device) for _ in range(warmup + repeats)][warmup:])


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
    rates = {}
    for side in MATRIX_SIDES[torch.device(device).type]:
        a, b = torch.rand(2, side, side, device=device)
        measured = measure(partial(torch.mm, a, b, out=torch.empty_like(a)), device, PEAK_REPEATS, warmup=2)
        rates[str(side)] = 2 * side**3 / measured["median"]
    return rates


def use_threads(threads: int) -> None:
    """Let PyTorch and OpenCV, which post-processing uses, compute with so many threads."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_environment(device: str, threads: int) -> dict[str, Any]:
    """The machine and the versions, without paths and dates."""
    return {
        "device": torch.device(device).type,
        "device_name": torch.cuda.get_device_name() if on_cuda(device) else cpu_name(),
        "cpu_name": cpu_name(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
