"""How much memory this process takes."""

import resource
from pathlib import Path

import torch


def resident_bytes() -> tuple[int, int]:
    """Present and largest resident memory of this process."""
    status = Path("/proc/self/status")
    if not status.is_file():  # not Linux; ru_maxrss is in bytes on macOS, and there is no present value
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest, largest
    # Not ru_maxrss, which on Linux a process inherits from the one that started it.
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    present, largest = (1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return present, largest


def peak_memory(device: str) -> int:
    """Largest memory so far in bytes: of this process on a CPU, of the tensors on CUDA."""
    return torch.cuda.max_memory_allocated() if torch.device(device).type == "cuda" else resident_bytes()[1]
