"""Peak memory of training.

On a CPU it is that of a fresh process that takes nothing but training steps:

    python -m rec_attend_d2.benchmark.training_memory CONFIG.yaml IMAGES STEPS

prints a json line with the fields of :class:`TrainingMemory`; the CPU threads are those of OMP_NUM_THREADS.
"""

import dataclasses
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.config import CfgNode

from ..process_memory import resident_bytes
from .processes import last_line
from .runs import TrainingStep, build_random_model

# The second one also holds the optimizer's state, the third what the allocator does not give back.
STEPS = 3


@dataclass(frozen=True)
class TrainingMemory:
    """Memory in bytes.

    Attributes:
        peak: largest, with nothing subtracted: on a CPU the process's resident memory, on CUDA the allocated tensors.
        idle: the same before the first step, with model and batch in memory.
    """

    peak: int
    idle: int

    @property
    def increase(self) -> int:
        """Peak over idle."""
        return self.peak - self.idle


def _on_cpu(step: TrainingStep, steps: int) -> TrainingMemory:
    idle, _ = resident_bytes()
    for _ in range(steps):
        step()
    return TrainingMemory(resident_bytes()[1], idle)


def _on_cuda(step: TrainingStep, steps: int) -> TrainingMemory:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    idle = torch.cuda.memory_allocated()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return TrainingMemory(torch.cuda.max_memory_allocated(), idle)


def training_memory(cfg: CfgNode, images: int, threads: int) -> TrainingMemory:
    """Peak memory of training with batches of so many images.

    Raises:
        RuntimeError: the process that trains failed.
    """
    if cfg.MODEL.DEVICE.startswith("cuda"):
        return _on_cuda(TrainingStep(cfg, build_random_model(cfg), images), STEPS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(cfg.dump())
        line = last_line(["-m", __name__, str(path), str(images), str(STEPS)], threads)
    return TrainingMemory(**json.loads(line))


def main(config_file: str, images: str, steps: str) -> None:
    """Train and print the memory."""
    from ..config import load_config

    cfg = load_config(config_file, [])
    step = TrainingStep(cfg, build_random_model(cfg), int(images))
    print(json.dumps(dataclasses.asdict(_on_cpu(step, int(steps)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
