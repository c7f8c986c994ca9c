"""Hooks of the training loop."""

import logging
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import BestCheckpointer
from detectron2.evaluation import inference_context
from detectron2.utils import comm
from torch import nn

from ..modeling import RecAttendPreprocessor, RecurrentAttention
from ..modeling.image_model import STATISTICS_PERIOD
from ..process_memory import peak_memory
from ..random_numbers import derive_seed, seed_all
from ..threads import choose_threads, describe_choice
from ..visualization.maps import draw_maps
from ..visualization.steps import draw_steps, seen_image, trace

logger = logging.getLogger(__name__)


def unwrap(model: nn.Module) -> Any:
    """The model itself, where it is wrapped for distributed training."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


class SeedHook(HookBase):
    """Seeds every iteration anew, so that it draws the same numbers after a resume or an evaluation."""

    def __init__(self, seed: int):
        """
        Args:
            seed: of the training; a resumed one goes on with its own.
        """
        self._seed = seed

    def before_step(self) -> None:
        """Seed the coming step of this process."""
        seed_all(derive_seed(self._seed, comm.get_rank(), self.trainer.iter))

    def state_dict(self) -> dict:
        """What a resumed training needs."""
        return {"seed": self._seed}

    def load_state_dict(self, state: dict) -> None:
        """Inverse of :meth:`state_dict`."""
        self._seed = state["seed"]


class ThreadsHook(HookBase):
    """Chooses the number of CPU threads by measuring, also when other programs come or go. Goes first of all hooks.

    Other programs show in iterations that become several times slower, which is measured at once. That they ended, and
    what the data loader's workers take, shows in nothing: so it also measures after ten seconds, twenty, forty, and so
    on, at last every five minutes.
    """

    # Iterations in a row that are slower than the median of the last ones by this factor, of which there have to be
    # some.
    SLOW_ITERATIONS, SLOWDOWN, ITERATIONS, FEWEST = 3, 3.0, 50, 10
    SHORTEST_PAUSE, LONGEST_PAUSE = 10.0, 300.0

    def __init__(
        self,
        device: str,
        clock: Callable[[], float] = time.perf_counter,
        choose: Callable[[str], int | None] = choose_threads,
    ):
        """
        Args:
            device: MODEL.DEVICE.
            clock: gives seconds.
            choose: see :func:`rec_attend_d2.threads.choose_threads`.
        """
        self._device = device
        self._clock = clock
        self._choose = choose
        self._threads: int | None = None
        self._seconds: deque[float] = deque(maxlen=self.ITERATIONS)
        self._pause = self.SHORTEST_PAUSE
        self._slow = 0

    def before_train(self) -> None:
        """Choose for the first time."""
        self._measure()

    def _measure(self) -> None:
        chosen = self._choose(self._device)
        if chosen is not None and chosen != self._threads:
            logger.info(describe_choice(chosen))
        self._threads, self._slow, self._due = chosen, 0, self._clock() + self._pause

    def before_step(self) -> None:
        """Start the clock."""
        self._started = self._clock()

    def after_step(self) -> None:
        """Stop it, and measure where it is time to."""
        now = self._clock()
        seconds = now - self._started
        known = len(self._seconds) >= self.FEWEST
        self._slow = self._slow + 1 if known and seconds > self.SLOWDOWN * median(self._seconds) else 0
        self._seconds.append(seconds)
        if self._slow >= self.SLOW_ITERATIONS:
            self._seconds.clear()
            self._pause = self.SHORTEST_PAUSE
            self._measure()
        elif now >= self._due:
            self._pause = min(2 * self._pause, self.LONGEST_PAUSE)
            self._measure()


class ScheduledSamplingHook(HookBase):
    """Tells the model's schedule the iteration, which a resumed training continues, and logs the probabilities."""

    def __init__(self, model: nn.Module):
        self._sampling = unwrap(model).scheduled_sampling
        self._last_step = unwrap(model).time_steps - 1

    def before_step(self) -> None:
        """Set the iteration that the coming step belongs to."""
        self._sampling.iteration = self.trainer.iter

    def after_step(self) -> None:
        """Log the probabilities at the first and the last time step."""
        for name, step in (("first", 0), ("last", self._last_step)):
            self.trainer.storage.put_scalar(f"sampling/box_{name}_step", self._sampling.box_probability(step))
            self.trainer.storage.put_scalar(f"sampling/mask_{name}_step", self._sampling.mask_probability(step))


class MemoryHook(HookBase):
    """Logs ``max_mem_mb``, the largest memory so far (see :func:`peak_memory`), evaluations included.

    Detectron2 prints that of CUDA alone, and logs none.
    """

    def __init__(self, device: str):
        """
        Args:
            device: MODEL.DEVICE.
        """
        self._device = device

    def after_step(self) -> None:
        """Log it every 20 iterations, and after the last one."""
        iteration = self.trainer.iter
        if iteration % STATISTICS_PERIOD == 0 or iteration + 1 >= self.trainer.max_iter:
            self.trainer.storage.put_scalar("max_mem_mb", peak_memory(self._device) / 2**20, smoothing_hint=False)


class ResumableBestCheckpointer(BestCheckpointer):
    """Detectron2's best checkpointer, which also remembers over a resume what was best so far."""

    def state_dict(self) -> dict:
        """What a resumed training needs."""
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict) -> None:
        """Inverse of :meth:`state_dict`."""
        self.best_metric = state["best_metric"]
        self.best_iter = state["best_iter"]


def draw_trace(model: RecurrentAttention, example: dict) -> np.ndarray:
    """The steps of one image, RGB [h, w, 3]."""
    return draw_steps(trace(model, example))


def draw_predicted_maps(model: RecAttendPreprocessor, example: dict) -> np.ndarray:
    """The maps that stage A predicts for one image, RGB [h, w, 3]."""
    maps = model.preprocessor(model.preprocess_image([example]), [example])
    return draw_maps(seen_image(example), maps, 0)


# What is drawn of a kind of model, and its name in the event storage.
PICTURES: dict[type[nn.Module], tuple[str, Callable[[Any, dict], np.ndarray]]] = {
    RecurrentAttention: ("steps", draw_trace),
    RecAttendPreprocessor: ("maps", draw_predicted_maps),
}


class PicturesHook(HookBase):
    """Puts a picture of what the model does to one fixed image into the event storage (TensorBoard) at evaluations."""

    def __init__(self, model: nn.Module, example: dict, period: int):
        """
        Args:
            model: the model that is drawn, the averaged one if there is one; of a kind in :data:`PICTURES`.
            example: dataset dict of the image.
            period: iterations between two pictures; 0 = only after training.
        """
        self._model = unwrap(model)
        self._example = example
        self._period = period
        self._name, self._draw = next(value for kind, value in PICTURES.items() if isinstance(self._model, kind))

    def after_step(self) -> None:
        """Draw where an evaluation is due."""
        next_iter = self.trainer.iter + 1
        due = self._period > 0 and next_iter % self._period == 0
        if due or next_iter >= self.trainer.max_iter:
            with torch.no_grad(), inference_context(self._model):
                picture = self._draw(self._model, self._example)
            self.trainer.storage.put_image(self._name, picture.transpose(2, 0, 1))
