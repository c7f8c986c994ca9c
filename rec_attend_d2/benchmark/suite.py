"""All measurements of one config, as rows that a json file can hold.

A row has ``run`` and ``batch`` (its name and the images per run), ``seconds`` (median, q1, q3, repeats),
``first_seconds`` (of the very first run, which compiles where the config says so),
``images_per_second``, ``flops``, ``phases`` (median own seconds by name) and, where they apply, ``steps`` (time steps),
``instances`` (found per image) and ``memory`` (peak, idle, increase; bytes).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from detectron2.config import CfgNode
from torch import nn

from ..modeling import RecAttend
from ..modeling.paper.sequence_model import SequenceModel
from .batches import synthetic_batch, usual_objects
from .compute import count_flops
from .phases import Probe, profile
from .probes import model_probes, training_probes
from .runs import (
    Inference,
    TrainingStep,
    Unroll,
    build_random_model,
    check_steps,
    known_scores,
    possible_objects,
    stopping,
)
from .timing import Timing, measure, stopwatch_for
from .training_memory import TrainingMemory, training_memory

TRAINING = "training step"
INFERENCE = "inference"
ALL_STEPS = "inference, all steps"
UNROLL = "inference, all steps, networks only"


@dataclass(frozen=True)
class Effort:
    """How thoroughly to measure.

    Attributes:
        repeats: runs that count.
        warmup: runs before them.
        threads: of the CPU.
    """

    repeats: int
    warmup: int
    threads: int

    def use_threads(self) -> None:
        """Let PyTorch and OpenCV, which post-processing uses, compute with so many threads."""
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)


def timing_row(timing: Timing) -> dict[str, float]:
    """A timing as it stands in the json file."""
    return dataclasses.asdict(timing)


def memory_row(memory: TrainingMemory) -> dict[str, int]:
    """Memory as it stands in the json file, bytes."""
    return {**dataclasses.asdict(memory), "increase": memory.increase}


def _row(name: str, images: int, run: Callable, probes: Sequence[Probe], device: str, effort: Effort) -> dict[str, Any]:
    stopwatch = stopwatch_for(device)
    first = measure(run, stopwatch, repeats=1, warmup=0).median
    timing = measure(run, stopwatch, effort.repeats, effort.warmup)
    with torch.compiler.set_stance("force_eager"):  # what is compiled cannot be counted
        flops = count_flops(run)
    return {
        "run": name,
        "batch": images,
        "seconds": timing_row(timing),
        "first_seconds": first,
        "images_per_second": images / timing.median,
        "flops": flops,
        # Already warm.
        "phases": profile(run, probes, stopwatch, effort.repeats, warmup=0),
    }


def training_row(cfg: CfgNode, model: nn.Module, images: int, effort: Effort) -> dict[str, Any]:
    """Measure training steps (forward, backward, optimizer) with batches of so many images."""
    step = TrainingStep(cfg, model, images)
    row = _row(TRAINING, images, step, training_probes(step), cfg.MODEL.DEVICE, effort)
    return {**row, "memory": memory_row(training_memory(cfg, images, effort.threads))}


def stop_name(objects: int) -> str:
    """Name of the run that decides to stop after so many objects."""
    return f"inference, {objects} object{'s' * (objects != 1)}, then stop"


def _inference_runs(
    cfg: CfgNode, model: nn.Module, images: int, objects: Sequence[int]
) -> Iterator[tuple[str, Inference, int | None, bool, int]]:
    """Name, run, objects that the scores tell of (None: the model's own scores), early stop or not, steps expected."""
    batch = synthetic_batch(cfg, images, usual_objects(cfg))
    if not isinstance(model, SequenceModel):
        yield INFERENCE, Inference(model, batch), None, False, 0
        return
    steps = model.max_steps if isinstance(model, RecAttend) else model.time_steps
    yield ALL_STEPS, Inference(model, batch), usual_objects(cfg), False, steps
    yield UNROLL, Unroll(model, batch), usual_objects(cfg), False, 0
    for count in possible_objects(model, list(objects)):
        yield stop_name(count), Inference(model, batch), count, True, count + 1


def inference_rows(
    cfg: CfgNode, model: nn.Module, images: int, objects: Sequence[int], effort: Effort
) -> Iterator[dict[str, Any]]:
    """Measure inference with batches of so many images: all steps, and stopping after each number of ``objects``.

    Raises:
        RuntimeError: the model does not stop where its scores say so.
    """
    for name, run, count, early, expected in _inference_runs(cfg, model, images, objects):
        with ExitStack() as stack, torch.no_grad():
            counter = None
            if count is not None:
                assert isinstance(model, SequenceModel)
                counter = stack.enter_context(known_scores(model, count))
            if isinstance(model, RecAttend):
                stack.enter_context(stopping(model, early))
            row = _row(name, images, run, model_probes(model), cfg.MODEL.DEVICE, effort)
        if counter is not None and expected:
            check_steps(model, counter.steps, expected, run)
            row["steps"] = expected
        if not isinstance(run, Unroll):
            row["instances"] = run.found()
        yield row


def all_rows(cfg: CfgNode, batch_sizes: Sequence[int], objects: Sequence[int], effort: Effort) -> Iterator[dict]:
    """Rows of training and inference for each batch size."""
    model = build_random_model(cfg)
    for images in batch_sizes:
        yield training_row(cfg, model, images, effort)
        yield from inference_rows(cfg, model, images, objects, effort)


def growth_values(cfg: CfgNode, images: int, effort: Effort) -> dict[str, float]:
    """Seconds of a training step, seconds of inference with all steps, and bytes that training adds to the process."""
    model, stopwatch = build_random_model(cfg), stopwatch_for(cfg.MODEL.DEVICE)
    training = measure(TrainingStep(cfg, model, images), stopwatch, effort.repeats, effort.warmup)
    name, run, count, early, _ = next(_inference_runs(cfg, model, images, ()))
    with ExitStack() as stack:
        if count is not None:
            assert isinstance(model, SequenceModel)
            stack.enter_context(known_scores(model, count))
        if isinstance(model, RecAttend):
            stack.enter_context(stopping(model, early))
        inference = measure(run, stopwatch, effort.repeats, effort.warmup)
    return {
        TRAINING: training.median,
        name: inference.median,
        "training memory": float(training_memory(cfg, images, effort.threads).increase),
    }
