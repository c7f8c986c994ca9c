"""A pool of unfinished images as training batch, for the training mode StatePool."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass
class ImageState:
    """How far an image of the pool has got.

    Attributes:
        memory: what has been claimed of it; None of a new image.
        steps: training steps so far.
        misses: those of them that found no unclaimed object although there was one.
        finished: it was trained with nothing left to claim.
    """

    memory: Tensor | None = None
    steps: int = 0
    misses: int = 0
    finished: bool = False

    def advance(self, memory: Tensor, hit: bool, anything_left: bool) -> None:
        """Note a training step.

        Args:
            memory: after the step.
            hit: the step found an unclaimed object.
            anything_left: there was one.
        """
        self.memory = memory
        self.steps += 1
        self.misses += anything_left and not hit
        self.finished = not anything_left


class StatePoolLoader:
    """Yields the same dataset dicts again and again, each until it is finished, and then the next ones.

    Every dict has a ``state`` (:class:`ImageState`), which the model advances. Images come from ``loader``, one after
    another; none is left out. The pool itself is not part of a checkpoint: a resumed training starts with new images.
    """

    def __init__(self, loader: Iterable[list[dict]], slots: int, max_steps: int, max_misses: int):
        """
        Args:
            loader: endless loader of batches of dataset dicts, of any batch size.
            slots: images per batch.
            max_steps: an image gives up its slot after so many iterations, finished or not.
            max_misses: or after so many misses. At inference the model would have stopped by then; without this limit
                images with an object that it cannot find fill the pool.
        """
        if slots < 1:
            raise ValueError(f"A pool needs at least 1 slot, got {slots} (SOLVER.IMS_PER_BATCH).")
        if max_misses < 1:
            raise ValueError(f"MODEL.REC_ATTEND.TRAINING.MAX_MISSES is {max_misses}; give at least 1.")
        self.loader = loader
        self.slots = slots
        self.max_steps = max_steps
        self.max_misses = max_misses

    def __iter__(self) -> Iterator[list[dict]]:
        """Endless batches of ``slots`` dataset dicts."""
        batches = iter(self.loader)
        waiting: deque[dict] = deque()
        pool: list[dict] = []
        while True:
            pool = [entry for entry in pool if not self._gives_up(entry["state"])]
            while len(pool) < self.slots:
                if not waiting:
                    waiting.extend(next(batches))
                pool.append({**waiting.popleft(), "state": ImageState()})
            yield list(pool)

    def _gives_up(self, state: ImageState) -> bool:
        return state.finished or state.steps >= self.max_steps or state.misses >= self.max_misses
