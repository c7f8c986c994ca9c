"""Tiny configs of every kind of model, and a stopwatch whose time is set by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from rec_attend_d2.config import load_config

QUICK = Path(__file__).resolve().parents[2] / "tests" / "configs"


@pytest.fixture
def quick_cfg() -> Callable[..., CfgNode]:
    """A function from the name of a quick config, and options, to the config on the CPU, without weights."""

    def make(name: str, *options: object) -> CfgNode:
        return load_config(
            str(QUICK / f"{name}.yaml"), ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *map(str, options)]
        )

    return make


class HandStopwatch:
    """Time passes only by :meth:`pass_time`, and counts only after :meth:`wait`, as on a device."""

    def __init__(self) -> None:
        self.now = 0.0
        self._done = 0.0

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def mark(self) -> float:
        return self.now

    def wait(self) -> None:
        self._done = self.now

    def seconds(self, start: float, end: float) -> float:
        assert end <= self._done, "read before the device was done"
        return end - start


@pytest.fixture
def stopwatch() -> HandStopwatch:
    return HandStopwatch()
