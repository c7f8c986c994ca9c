"""Processes that work through a list together, of which one may die without taking the others' work with it."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar, cast

import cv2
import torch

Item = TypeVar("Item")
Work = Callable[[Sequence[Item]], list]

# Seconds that processes get to end by themselves.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Lost(Generic[Item]):
    """Work that was not done, since its process died.

    Attributes:
        items: the work.
        reason: how the process ended, in words.
    """

    items: list[Item]
    reason: str


def can_fork() -> bool:
    """Whether a new process can have what this one has loaded, at no cost; on macOS that is not safe."""
    return sys.platform.startswith("linux")


def use_one_thread() -> None:
    """Compute with one thread from now on. Before processes are forked, so that no thread is missing in them."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def work_in_processes(
    batches: Sequence[list[Item]], start: Callable[[], Work], processes: int, fork: bool
) -> Generator[list | Lost[Item], None, None]:
    """Work through batches, each by the process that is free first.

    Args:
        batches: of work.
        start: called in each process, makes the function that works on a batch; unless ``fork``, it can be pickled.
        processes: how many, at least 1.
        fork: processes begin as copies of this one.

    Yields:
        What the function returned of a batch; or the work that was lost because its process died, while the others go
        on. Whoever stops early (also by Ctrl-C) ends the processes.

    Raises:
        Exception: what the function raised; of a disk that is full, say, the others would not get further.
    """
    context: Any = multiprocessing.get_context("fork" if fork else "spawn")
    if fork:
        use_one_thread()
    workers: dict[Connection, Any] = {}
    current: dict[Connection, list[Item]] = {}
    waiting = list(reversed(batches))
    try:
        for _ in range(min(processes, len(batches))):
            ours, theirs = context.Pipe()
            # A copy of this process has our ends of the other pipes too, and would keep them open.
            inherited = [*workers, ours] if fork else []
            worker = context.Process(target=_work, args=(theirs, start, inherited), daemon=True)
            worker.start()
            theirs.close()
            workers[ours] = worker
            _hand_out(ours, waiting, current)
        while current:
            for ready in wait(list(current)):
                connection = cast(Connection, ready)
                batch = current.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, OSError):
                    worker = workers.pop(connection)
                    worker.join(_PATIENCE)
                    yield Lost(batch, _how_it_ended(worker.exitcode))
                    continue
                if isinstance(result, Exception):
                    raise result
                _hand_out(connection, waiting, current)
                yield result
        if waiting:
            yield Lost([item for batch in reversed(waiting) for item in batch], "no process is left")
    finally:
        _end(workers)


def _hand_out(connection: Connection, waiting: list[list[Item]], current: dict[Connection, list[Item]]) -> None:
    if not waiting:
        return
    current[connection] = waiting.pop()
    try:
        connection.send(current[connection])
    except OSError:
        pass  # it died; the next look at it says so


def _work(connection: Connection, start: Callable[[], Work], inherited: Sequence[Connection]) -> None:
    """What a process does until there is no more work, or nobody who hands it out."""
    for other in inherited:
        other.close()
    # Ctrl-C reaches all processes of a terminal; the first of them ends the others, which then tidy up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not inherited:  # a copy has one thread already, and would wait for those that it has no copies of
        use_one_thread()
    work = start()
    while True:
        try:
            batch = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result: list | Exception = work(batch)
        except Exception as error:
            if not isinstance(error, OSError):
                traceback.print_exc()  # where it happened is not said in the process that raises it
            result = error
        try:
            connection.send(result)
        except OSError:
            return


def _how_it_ended(status: int | None) -> str:
    if status == -getattr(signal, "SIGKILL", 9):  # which Windows does not have
        return "its process was killed, as happens where memory runs out"
    if status is not None and status < 0:
        return f"its process was ended by signal {-status}"
    return f"its process ended with status {status}"


def _end(workers: dict[Connection, Any]) -> None:
    """Without work processes end; those that are at work are told to."""
    for connection, worker in workers.items():
        connection.close()
        if worker.is_alive():
            worker.terminate()
    for worker in workers.values():
        worker.join(_PATIENCE)
        if worker.is_alive():
            os.kill(worker.pid, signal.SIGKILL) if hasattr(signal, "SIGKILL") else worker.kill()
