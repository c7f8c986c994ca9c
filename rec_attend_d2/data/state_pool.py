"""A pool of unfinished images as training batch, for the fast model."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from detectron2.utils import comm
from torch import Tensor

from .image_stream import ORIGIN, ImageStream, restore_stream

# An image that the model never stops at gives up its slot after so many glances.
MAX_GLANCES = 20


@dataclass
class ImageState:
    """How far an image of the pool has got.

    Attributes:
        memory: what has been claimed of it; None of a new image.
        glances: training steps so far.
        finished: the last one claimed nothing, which is where inference stops.
    """

    memory: Tensor | None = None
    glances: int = 0
    finished: bool = False

    def advance(self, memory: Tensor, claimed: bool) -> None:
        """Note a training step: the memory after it, and whether it claimed anything."""
        self.memory = memory
        self.glances += 1
        self.finished = not claimed


class StatePoolLoader:
    """Yields the same dataset dicts again and again, each until it is finished, and then the next ones.

    Every dict has a ``state`` (:class:`ImageState`), which the model advances. Images come from ``loader``, one after
    another; none is left out. With several pools, batches come from each in turn, so that the batches of one optimizer
    step (SOLVER.ACCUMULATE) are different images.
    """

    def __init__(self, loader: Iterable[list[dict]], slots: int, pools: int = 1):
        """
        Args:
            loader: endless loader of batches of dataset dicts, of any batch size; to save and load the state, an
                :class:`.image_stream.ImageStream`.
            slots: images per batch.
            pools: how many.
        """
        if slots < 1:
            raise ValueError(f"A pool needs at least 1 slot, got {slots} (SOLVER.IMS_PER_BATCH).")
        self.loader = loader
        self.slots = slots
        # The pool that comes next is the first.
        self._pools: deque[list[dict]] = deque([] for _ in range(pools))
        self._taken = 0

    def __iter__(self) -> Iterator[list[dict]]:
        """Endless batches of ``slots`` dataset dicts."""
        batches = iter(self.loader)
        waiting: deque[dict] = deque()
        while True:
            pool = [entry for entry in self._pools.popleft() if not self._gives_up(entry["state"])]
            while len(pool) < self.slots:
                if not waiting:
                    waiting.extend(next(batches))
                pool.append({**waiting.popleft(), "state": ImageState()})
                self._taken += 1
            self._pools.append(pool)
            yield list(pool)

    @staticmethod
    def _gives_up(state: ImageState) -> bool:
        return state.finished or state.glances >= MAX_GLANCES

    def state_dict(self) -> dict:
        """What a resumed training needs: which images this process has in its pools, and how far they have got."""
        assert isinstance(self.loader, ImageStream)
        pools = [[{ORIGIN: entry[ORIGIN], **_saved(entry["state"])} for entry in pool] for pool in self._pools]
        return {"seed": self.loader.seed, "taken": self._taken, "pools": pools}

    def load_state_dict(self, state: dict) -> None:
        """Go on with the pools of a state. Goes before the iteration.

        A checkpoint holds the main process's; the others start with new images, after those it had taken.
        """
        assert isinstance(self.loader, ImageStream)
        restore_stream(self.loader, state)
        self._taken = state["taken"]
        if comm.is_main_process() and len(state["pools"]) == len(self._pools):
            self._pools = deque([self._restored(saved) for saved in pool] for pool in state["pools"])

    def _restored(self, saved: dict) -> dict:
        state = ImageState(**{key: value for key, value in saved.items() if key != ORIGIN})
        return {**self.loader.read(tuple(saved[ORIGIN])), "state": state}  # type: ignore[attr-defined]


def _saved(state: ImageState) -> dict:
    memory = None if state.memory is None else state.memory.detach().cpu()
    return {**vars(state), "memory": memory}
