#!/usr/bin/env python
"""What would make the paper's training steps faster or smaller, and what it costs in quality.

    python research/try_paper_speed.py [--config-file configs/CVPPP/stage_c.yaml] [--batch 5] [--repeats 3]
        [--threads 1] [--output docs/speed/paper_trials.json]
    python research/try_paper_speed.py --train --config-file configs/Rosettes/stage_c.yaml [KEY VALUE ...]

The first form times one training step of each variant, every one in a process of its own: float32; networks in bfloat16
(torch.autocast, for processors with AVX512-BF16); all activations computed again in the backward pass; those of the
control CNN alone (TRAINING.RECOMPUTE); those of the mask head alone; and the mask head's convolutions
on the patches of all T steps as one batch beside T batches. The second trains a config with its networks in bfloat16.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import nn

from rec_attend_d2.benchmark.speed import build_random_model, training_step
from rec_attend_d2.config import load_config
from rec_attend_d2.engine import Trainer, evaluate, setup, write_results
from rec_attend_d2.layers import step_norm
from rec_attend_d2.layers.batch_norm import batch_norm
from rec_attend_d2.layers.recomputation import recomputed
from rec_attend_d2.process_memory import peak_memory
from rec_attend_d2.whole_files import write_json

VARIANTS = ("float32", "bfloat16", "recompute all", "recompute control CNN", "recompute mask head")


def in_bfloat16(model: nn.Module) -> None:
    """Let the model's training steps run in bfloat16; its weights and losses stay what they are."""
    forward = model.forward
    # Norms, with statistics of their own in float32, would refuse maps in bfloat16.
    step_norm.batch_norm = lambda x, *arguments: batch_norm(x.float(), *arguments)

    def wrapped(*arguments, **named):
        with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
            return forward(*arguments, **named)

    model.forward = wrapped  # type: ignore[method-assign]


def recompute_only(model: nn.Module, *names: str) -> None:
    """Compute activations again of some of a step's networks: "look", "cut_out"."""
    wished = [getattr(model, name) for name in names]

    def run_part(part: Callable, *arguments):
        return recomputed(part, *arguments) if part in wished and model.training else part(*arguments)

    model.run_part = run_part


def build(cfg: CfgNode, variant: str) -> nn.Module:
    """The model of a variant, with random weights."""
    model = build_random_model(cfg)
    if variant == "bfloat16":
        in_bfloat16(model)
    elif variant == "recompute all":
        recompute_only(model, "look", "cut_out")
    elif variant == "recompute control CNN":
        recompute_only(model, "look")
    elif variant == "recompute mask head":
        recompute_only(model, "cut_out")
    return model


def measure(config_file: str, variant: str, batch: int, repeats: int) -> dict:
    """CPU and wall seconds of a step, median, and the peak memory of this process in bytes."""
    cfg = load_config(config_file, ["MODEL.DEVICE", "cpu"])
    step = training_step(cfg, build(cfg, variant), batch)
    step()
    times = []
    for _ in range(repeats):
        start = time.process_time(), time.perf_counter()
        step()
        times.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    cpu, wall = (sorted(column)[len(times) // 2] for column in zip(*times, strict=True))
    return {"variant": variant, "cpu_seconds": cpu, "seconds": wall, "peak_memory": peak_memory("cpu")}


def measure_head(config_file: str, batch: int, repeats: int) -> dict:
    """CPU seconds, forward and backward, of the mask head on T batches of patches and on all of them as one."""
    cfg = load_config(config_file, ["MODEL.DEVICE", "cpu", "MODEL.REC_ATTEND.NORM", "none"])
    model, steps = build_random_model(cfg), cfg.MODEL.REC_ATTEND.TIME_STEPS
    head = model.segmentation_head.train()
    channels = next(head.parameters()).shape[1]
    patches = torch.rand(steps * batch, channels, *cfg.MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE)

    def seconds(parts: int) -> float:
        times = []
        for _ in range(repeats + 1):
            start = time.process_time()
            for number, part in enumerate(patches.chunk(parts)):
                head(part, number if parts > 1 else 0)[0].sum().backward()
            times.append(time.process_time() - start)
        return sorted(times[1:])[repeats // 2]

    return {"steps": steps, "one_by_one": seconds(steps), "as_one_batch": seconds(1)}


def train(arguments: argparse.Namespace) -> None:
    """Train a config with its networks in bfloat16, as tools/train_net.py does in float32."""
    words = argparse.Namespace(config_file=arguments.config_file, opts=arguments.opts, eval_only=False, resume=False)
    cfg = setup(words)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    in_bfloat16(trainer.model)
    trainer.train()
    write_results(evaluate(cfg, str(Path(cfg.OUTPUT_DIR, "model_final.pth"))), cfg.OUTPUT_DIR)


def main() -> None:
    """Measure every variant in a process of its own, or train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="configs/CVPPP/stage_c.yaml", help="config of the paper's model")
    parser.add_argument("--batch", type=int, default=5, help="images")
    parser.add_argument("--repeats", type=int, default=3, help="steps that count; the median is kept")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--output", type=Path, help="json to write")
    parser.add_argument("--train", action="store_true", help="train in bfloat16 instead")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config changes of a training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.train:
        return train(arguments)
    if arguments.variant == "head":
        return print(json.dumps(measure_head(arguments.config_file, arguments.batch, arguments.repeats)))
    if arguments.variant:
        return print(json.dumps(measure(arguments.config_file, arguments.variant, arguments.batch, arguments.repeats)))
    rows = {}
    for variant in (*VARIANTS, "head"):
        command = [sys.executable, *sys.argv, "--variant", variant]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[variant] = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps(rows[variant]), flush=True)
    if arguments.output:
        settings = {"config": arguments.config_file, "batch": arguments.batch, "threads": arguments.threads}
        kept = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}  # of trainings
        write_json(arguments.output, {**kept, **settings, "variants": rows})


if __name__ == "__main__":
    main()
