"""Processes that work together."""

import os
import signal
from functools import partial

import pytest

from rec_attend_d2.prediction.worker_pool import Lost, work_in_processes


def start(deadly: int = -1, wrong: int = -1):
    def work(numbers):
        if deadly in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        if wrong in numbers:
            raise OSError("no space left")
        return [(number, os.getpid()) for number in numbers]

    return work


def run(processes: int, **options: int) -> list:
    return list(work_in_processes([[n, n + 1] for n in range(0, 12, 2)], partial(start, **options), processes, True))


@pytest.mark.parametrize("processes", [1, 3, 20])
def test_all_work_is_done(processes):
    results = [pair for batch in run(processes) for pair in batch]
    assert sorted(number for number, _ in results) == list(range(12))
    assert os.getpid() not in {process for _, process in results}


@pytest.mark.parametrize(("processes", "lost"), [(2, [4, 5]), (1, [4, 5, 6, 7, 8, 9, 10, 11])])
def test_a_death_is_reported(processes, lost):
    results = run(processes, deadly=4)
    reports = [result for result in results if isinstance(result, Lost)]
    assert sorted(item for report in reports for item in report.items) == lost
    assert "was killed" in reports[0].reason


def test_an_error_ends_the_work():
    with pytest.raises(OSError, match="no space left"):
        run(2, wrong=4)


def test_who_stops_early_ends_the_processes():
    results = work_in_processes([[n] for n in range(100)], start, 2, True)
    process = next(results)[0][1]
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
