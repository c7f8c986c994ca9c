"""All speed measurements of one config, on synthetic batches and with random weights that never change.

A row has ``run`` and ``batch`` (its name and the images per run), ``seconds`` (median, q1, q3, repeats),
``images_per_second``, ``flops`` and, where they apply, ``steps`` (time steps or glances) and ``memory`` (peak, idle,
increase; bytes). Memory of training on a CPU is that of a fresh process:

    python -m rec_attend_d2.benchmark.speed CONFIG.yaml IMAGES

takes nothing but training steps and prints it as json.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F

from ..config import load_config
from ..data.training import training_size
from ..engine.optimization import build_optimizer
from ..modeling import RecurrentAttention
from ..process_memory import peak_memory, resident_bytes
from . import probes
from .batches import synthetic_batch
from .disks import grid_of_disks
from .measuring import count_flops, measure, on_cuda
from .processes import last_line

TRAINING = "training step"
INFERENCE = "inference"
ALL_STEPS = "inference, all steps"
NETWORKS = "inference, all steps, networks only"

SEED = 0
# Not an iteration in which models compute statistics or pictures.
ITERATION = 1
# Steps of a training whose memory is measured: the second also holds the optimizer's state, the third what the
# allocator does not give back.
MEMORY_STEPS = 3
# What post-processing alone is timed with: size of the image, pixels, and instances.
LARGE_IMAGE, INSTANCES = (1024, 2048), 20


@dataclass(frozen=True)
class Effort:
    """How thoroughly to measure.

    Attributes:
        repeats: runs that count.
        warmup: runs before them.
    """

    repeats: int
    warmup: int


def build_random_model(cfg: CfgNode) -> nn.Module:
    """The config's model on its device with random weights, the same in every run; MODEL.WEIGHTS is not read."""
    torch.manual_seed(SEED)
    return build_model(cfg)


def training_step(cfg: CfgNode, model: nn.Module, images: int) -> Callable[[], None]:
    """A function that takes one step of Detectron2's trainer, with a batch of so many synthetic images.

    The learning rate is 0, so that every step is the same work.
    """
    batches = repeat(synthetic_batch(cfg, images))
    optimizer = (build_optimizer if probes.is_of_this_project(cfg) else build_detectron2_optimizer)(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    trainer = SimpleTrainer(model, batches, optimizer)
    trainer.iter = ITERATION

    def run() -> None:
        torch.manual_seed(SEED)
        model.train()
        with EventStorage(ITERATION):
            trainer.run_step()

    return run


def measure_memory(cfg: CfgNode, images: int) -> dict[str, int]:
    """Bytes that training steps take in this process, which on a CPU should have done nothing else.

    Returns:
        ``peak``: the largest, with nothing subtracted: on a CPU the process's resident memory, on CUDA the allocated
        tensors; ``idle``: the same before the first step, with model and batch in memory; ``increase``: peak over idle.
    """
    step = training_step(cfg, build_random_model(cfg), images)
    cuda = on_cuda(cfg.MODEL.DEVICE)
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    idle = torch.cuda.memory_allocated() if cuda else resident_bytes()[0]
    for _ in range(MEMORY_STEPS):
        step()
    peak = peak_memory(cfg.MODEL.DEVICE)
    return {"peak": peak, "idle": idle, "increase": peak - idle}


def training_memory(cfg: CfgNode, images: int) -> dict[str, int]:
    """:func:`measure_memory`, on a CPU in a process of its own. Raises a RuntimeError where that fails."""
    if on_cuda(cfg.MODEL.DEVICE):
        return measure_memory(cfg, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(cfg.dump())
        return json.loads(last_line(["-m", __name__, str(path), str(images)], torch.get_num_threads()))


def _row(name: str, images: int, run: Callable[[], Any], device: str, effort: Effort) -> dict[str, Any]:
    seconds = measure(run, device, effort.repeats, effort.warmup)
    return {
        "run": name,
        "batch": images,
        "seconds": seconds,
        "images_per_second": images / seconds["median"],
        "flops": count_flops(run),
    }


def inference_batch(cfg: CfgNode, images: int) -> list[dict]:
    """Dataset dicts of synthetic images, without the truth."""
    truth = ("instances", "labels", "gt_classes")
    return [{k: v for k, v in entry.items() if k not in truth} for entry in synthetic_batch(cfg, images)]


@torch.no_grad()
def inference_rows(
    cfg: CfgNode, model: nn.Module, images: int, objects: Sequence[int], effort: Effort
) -> Iterator[dict[str, Any]]:
    """Measure inference with batches of so many images: all steps, and stopping after each number of ``objects``.

    Raises:
        RuntimeError: the model does not stop where its scores say so.
    """
    batch, device = inference_batch(cfg, images), cfg.MODEL.DEVICE
    model.eval()
    if not isinstance(model, RecurrentAttention):
        yield _row(INFERENCE, images, lambda: model(batch), device, effort)
        return
    if probes.has_time_steps(cfg):
        steps = cfg.MODEL.REC_ATTEND.TIME_STEPS
        runs = [(ALL_STEPS, probes.usual_objects(cfg), False, steps)]
        # Those at which the model can still decide to stop.
        possible = [count for count in objects if count < steps and probes.decides_to_stop(model)]
        runs += [(f"inference, {n} object{'s' * (n != 1)}, then stop", n, True, n + 1) for n in possible]
    else:  # all objects are found in the first glance, and none in the second
        runs = [(f"inference, {n} object{'s' * (n != 1)} apart, then stop", n, True, 1 + (n > 0)) for n in objects]
    for name, count, stop, expected in runs:
        with probes.known_objects(model, count, stop) as counter:
            row = _row(name, images, lambda: model(batch), device, effort)
        if counter.steps != expected:
            raise RuntimeError(
                f"{type(model).__name__} took {counter.steps} steps in '{name}', but its scores say {expected}: its "
                "stop scorer is not called once per step, as this measurement expects."
            )
        yield {**row, "steps": expected}
    if probes.has_time_steps(cfg):
        networks = probes.NetworksOnly(model)
        yield _row(NETWORKS, images, lambda: networks(batch), device, effort)


def all_rows(cfg: CfgNode, batch_sizes: Sequence[int], objects: Sequence[int], effort: Effort) -> Iterator[dict]:
    """Rows of training steps (forward, backward, optimizer) and of inference for each batch size."""
    model = build_random_model(cfg)
    for images in batch_sizes:
        row = _row(TRAINING, images, training_step(cfg, model, images), cfg.MODEL.DEVICE, effort)
        yield {**row, "memory": training_memory(cfg, images)}
        yield from inference_rows(cfg, model, images, objects, effort)


def postprocessing_time(
    cfg: CfgNode, effort: Effort, image_size: tuple[int, int] = LARGE_IMAGE, objects: int = INSTANCES
) -> tuple[dict[str, float], int]:
    """Time of the config's postprocessor for one large image, and the number of instances it makes.

    Raises:
        ValueError: models of this kind have no postprocessor.
    """
    masks = torch.from_numpy(grid_of_disks(training_size(cfg), objects)).float()
    soft = F.avg_pool2d(masks[:, None], 3, stride=1, padding=1)[:, 0].to(cfg.MODEL.DEVICE)
    run = probes.postprocessing_of(cfg, soft, image_size)
    return measure(run, cfg.MODEL.DEVICE, effort.repeats, effort.warmup), len(run())


if __name__ == "__main__":
    print(json.dumps(measure_memory(load_config(sys.argv[1], []), int(sys.argv[2]))))
