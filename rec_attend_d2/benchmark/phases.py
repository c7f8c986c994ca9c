"""Which part of a model takes how long: methods of its parts are wrapped from outside while it is measured.

The model's code knows nothing of it, and an unprofiled run costs nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

from .timing import Stopwatch

# What no wrapped method claims.
OTHER = "other"


class PhaseClock:
    """Own time of each phase: a phase inside another one counts for itself alone.

    Every instant belongs to the innermost phase that was entered, so that the phases add up to the whole.
    """

    def __init__(self, stopwatch: Stopwatch):
        self._stopwatch = stopwatch
        self._stack = [OTHER]
        # (mark, phase from then on)
        self._changes: list[tuple[Any, str]] = []

    def enter(self, phase: str) -> None:
        """A phase begins."""
        self._stack.append(phase)
        self._changes.append((self._stopwatch.mark(), phase))

    def leave(self) -> None:
        """The innermost phase ends."""
        self._stack.pop()
        self._changes.append((self._stopwatch.mark(), self._stack[-1]))

    def time(self, run: Callable[[], Any]) -> dict[str, float]:
        """Own seconds by phase in one call of ``run``; their sum is its time."""
        self._stopwatch.wait()
        self._stack, self._changes = [OTHER], [(self._stopwatch.mark(), OTHER)]
        run()
        self._changes.append((self._stopwatch.mark(), OTHER))
        self._stopwatch.wait()
        seconds: dict[str, float] = defaultdict(float)
        for (start, phase), (end, _) in zip(self._changes[:-1], self._changes[1:], strict=True):
            seconds[phase] += self._stopwatch.seconds(start, end)
        return dict(seconds)


@dataclass(frozen=True)
class Probe:
    """A callable attribute whose calls are a phase.

    Attributes:
        phase: its name.
        owner: an object (the attribute is replaced on it alone), or a class or module.
        attribute: the method's or function's name, or that of an attribute which holds a callable.
    """

    phase: str
    owner: Any
    attribute: str


def _wrapped(function: Callable, phase: str, clock: PhaseClock) -> Callable:
    @wraps(function, updated=())
    def timed(*arguments: Any, **named: Any) -> Any:
        clock.enter(phase)
        try:
            return function(*arguments, **named)
        finally:
            clock.leave()

    return timed


@contextmanager
def probing(probes: Iterable[Probe], clock: PhaseClock) -> Iterator[None]:
    """Let ``clock`` know of every call of the probed attributes; afterwards everything is as before.

    Raises:
        AttributeError: an owner has no such attribute.
    """
    undo: list[tuple[Any, str, bool, Any]] = []
    try:
        for probe in probes:
            kept = vars(probe.owner)
            own = probe.attribute in kept
            timed: Any = _wrapped(getattr(probe.owner, probe.attribute), probe.phase, clock)
            if isinstance(kept.get(probe.attribute), staticmethod):
                timed = staticmethod(timed)
            undo.append((probe.owner, probe.attribute, own, kept.get(probe.attribute)))
            setattr(probe.owner, probe.attribute, timed)
        yield
    finally:
        for owner, attribute, own, old in reversed(undo):
            if own:
                setattr(owner, attribute, old)
            else:
                delattr(owner, attribute)


def profile(
    run: Callable[[], Any], probes: Iterable[Probe], stopwatch: Stopwatch, repeats: int, warmup: int
) -> dict[str, float]:
    """Median own seconds of each phase over repeated runs, longest first."""
    clock = PhaseClock(stopwatch)
    with probing(probes, clock):
        runs = [clock.time(run) for _ in range(warmup + repeats)][warmup:]
    names = {name for seconds in runs for name in seconds}
    medians = {name: float(np.median([seconds.get(name, 0.0) for seconds in runs])) for name in names}
    return dict(sorted(medians.items(), key=lambda item: -item[1]))
