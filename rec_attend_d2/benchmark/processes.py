"""Fresh Python processes to measure in, so that memory, threads and failures are of one measurement alone."""

import os
import subprocess
import sys
from collections.abc import Sequence


def environment(threads: int) -> dict[str, str]:
    """Environment of a process with so many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def last_line(command: Sequence[str], threads: int) -> str:
    """The last line that ``python COMMAND`` prints.

    Raises:
        RuntimeError: it fails, or prints nothing; the message has the last line of its errors.
    """
    arguments = [sys.executable, *command]
    result = subprocess.run(arguments, env=environment(threads), capture_output=True, text=True)
    lines = result.stdout.splitlines()
    if result.returncode != 0 or not lines:
        errors = result.stderr.splitlines() or ["it printed nothing"]
        raise RuntimeError(f"The process that measures failed with exit code {result.returncode}: {errors[-1]}")
    return lines[-1]
