#!/usr/bin/env python
"""How fast a model trains and infers, phase by phase, on synthetic images with random weights.

    python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml [--batch-sizes 1,5] [--objects 5,10] \
        [--repeats N] [--warmup N] [--threads N] [--device cpu|cuda] [--output FOLDER or FILE.json] \
        [--compare OLD.json] [--startup] [--growth] [--postprocessing] [KEY VALUE ...]

takes any config of this project and, for comparison, Detectron2's own, by path or by its name in the model zoo
(COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml). Images have INPUT.IMAGE_SIZE, also for Detectron2's models.

* Times are medians (with quartiles) of repeated runs after warm-up. Phases are measured in runs of their own; one
  inside another counts for itself alone, so that they add up to the run.
* FLOPs are counted by torch.utils.flop_counter: matrix products and convolutions of all time steps, forward and
  backward, a multiplication and an addition as two. The machine's peak is the best of several float32 matrix products.
* Peak memory of training on a CPU is that of a fresh process that does nothing else; on CUDA that of the tensors.
* "N objects, then stop": the stop scorer computes as ever, but its scores are replaced, so that N + 1 steps are taken.
* A Detectron2 detector with random weights finds nothing, which spares it work. Let it find N objects by adding
  MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 TEST.DETECTIONS_PER_IMAGE N.
"""

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode

from rec_attend_d2.benchmark import growth, report
from rec_attend_d2.benchmark.compute import matmul_peak
from rec_attend_d2.benchmark.postprocessing import IMAGE_SIZE, INSTANCES, postprocessing_time
from rec_attend_d2.benchmark.report import ReportError
from rec_attend_d2.benchmark.startup import import_times, training_times
from rec_attend_d2.benchmark.suite import Effort, all_rows, growth_values, timing_row
from rec_attend_d2.config import different_settings, load_config
from rec_attend_d2.whole_files import write_json

ROOT = Path(__file__).resolve().parents[1]
# Starting processes is slow, and does not vary as much.
STARTUP_REPEATS = 3


def numbers(text: str) -> list[int]:
    """Numbers separated by commas, sorted, each once. Raises argparse's error unless all are 0 or more."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers separated by commas, such as 1,5")
    return sorted({int(part) for part in parts})


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the config, or its name in Detectron2's model zoo")
    # Commas, because a list of words would swallow the KEY VALUE pairs after it.
    parser.add_argument("--batch-sizes", type=numbers, metavar="N,N", help="default 1 and SOLVER.IMS_PER_BATCH")
    parser.add_argument(
        "--objects", type=numbers, metavar="N,N", default=[1, 5, 10, 20], help="after which it stops (1,5,10,20)"
    )
    parser.add_argument("--repeats", type=int, default=10, help="runs that count (default 10)")
    parser.add_argument("--warmup", type=int, default=2, help="runs before them (default 2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default MODEL.DEVICE, or the CPU without CUDA")
    parser.add_argument(
        "--output", type=Path, default=Path("output/benchmark_speed"), help="json to write, or a folder for it"
    )
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="print what changed since this report")
    parser.add_argument("--startup", action="store_true", help="also time imports and the start of a training")
    parser.add_argument(
        "--growth", action="store_true", help="also fit how they grow with T and pixels (smallest batch)"
    )
    parser.add_argument("--postprocessing", action="store_true", help="also time it alone, for a large image")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config changes")
    arguments = parser.parse_args()
    for name, least in (("repeats", 1), ("warmup", 0), ("threads", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name} is {getattr(arguments, name)}; give at least {least}.")
    if arguments.batch_sizes and min(arguments.batch_sizes) < 1:
        parser.error("--batch-sizes holds a number below 1.")
    return arguments


def find_config(name: str) -> str:
    """Path of a config file, or of that name in Detectron2's model zoo; else the name as it is."""
    if os.path.isfile(name):
        return name
    try:
        return model_zoo.get_config_file(name)
    except RuntimeError:
        return name


def configure(arguments: argparse.Namespace) -> CfgNode:
    """The config on the device that was asked for.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: there is no such device or key, or a KEY without VALUE.
    """
    try:
        cfg = load_config(find_config(arguments.config_file), arguments.opts)
    except (KeyError, AssertionError) as error:  # of CfgNode
        raise ValueError(f"Config {arguments.config_file} with {' '.join(arguments.opts)}: {error}") from error
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but PyTorch finds no CUDA device here. Leave it out, or give cpu.")
    if arguments.device:
        cfg.MODEL.DEVICE = arguments.device
    cfg.MODEL.WEIGHTS = ""  # they are random
    return cfg


def check_comparable(old: dict[str, Any], cfg: CfgNode, environment: dict[str, Any], path: Path) -> None:
    """Raise a ReportError where an older report's figures are of something else than what will be measured."""
    different = report.different_environment(old["environment"], environment)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(yaml.safe_dump(old["config"]))
        different += different_settings(cfg, config)
    if different:
        raise ReportError(
            f"--compare {path} can't be compared with this run, which has another {', '.join(different)}."
        )


def plain_path(word: str) -> str:
    """A word of the command line; a path is relative to the project, or its last two parts: nothing of this machine."""
    if not os.path.isabs(word) and not os.path.exists(word):
        return word
    inside = os.path.relpath(word, ROOT)
    return inside if not inside.startswith("..") else "/".join(Path(word).parts[-2:])


def optional_parts(arguments: argparse.Namespace, cfg: CfgNode, effort: Effort) -> dict[str, Any]:
    """What --postprocessing, --startup and --growth ask for."""
    parts: dict[str, Any] = {}
    if arguments.postprocessing:
        timing, found = postprocessing_time(cfg, effort.repeats, effort.warmup)
        name = f"{IMAGE_SIZE[0]} x {IMAGE_SIZE[1]}, {INSTANCES} instances ({found} left)"
        parts["postprocessing"] = {name: timing_row(timing)}
    if arguments.startup:
        repeats = min(effort.repeats, STARTUP_REPEATS)
        times = import_times(repeats, effort.threads)
        times |= training_times(cfg, ROOT / "tools" / "train_net.py", repeats, effort.threads)
        parts["startup"] = {name: timing_row(timing) for name, timing in times.items()}
    if arguments.growth:
        images = (arguments.batch_sizes or [1])[0]
        parts["growth"] = growth.measure_growth(cfg, lambda changed: growth_values(changed, images, effort))
    return parts


def output_path(output: Path, config_file: str) -> Path:
    """Where the json goes: ``output`` itself if it ends so, else a file in it that is named by the config."""
    if output.suffix == ".json":
        return output
    config = Path(config_file)
    return output / f"{config.parent.name}_{config.stem}.json"


def benchmark(arguments: argparse.Namespace) -> None:
    """Measure, print the tables and write the json."""
    cfg = configure(arguments)
    effort = Effort(arguments.repeats, arguments.warmup, arguments.threads)
    effort.use_threads()
    environment = report.describe_environment(cfg.MODEL.DEVICE, arguments.threads)
    old = report.read_report(arguments.compare) if arguments.compare else None
    if old is not None:
        check_comparable(old, cfg, environment, arguments.compare)
    batch_sizes = arguments.batch_sizes or sorted({1, cfg.SOLVER.IMS_PER_BATCH})
    content = {
        "schema": report.SCHEMA,
        "command": shlex.join(["python", "tools/benchmark_speed.py", *map(plain_path, sys.argv[1:])]),
        "config_file": plain_path(arguments.config_file),
        "config": yaml.safe_load(cfg.dump()),
        "environment": environment,
        "settings": {"repeats": arguments.repeats, "warmup": arguments.warmup, "batch_sizes": batch_sizes},
        "peak": matmul_peak(cfg.MODEL.DEVICE),
        **optional_parts(arguments, cfg, effort),
        "rows": list(all_rows(cfg, batch_sizes, arguments.objects, effort)),
    }
    print(report.tables(content))
    if old is not None:
        print(f"\n{report.comparison_table(old, content)}")
    path = output_path(arguments.output, arguments.config_file)
    write_json(path, content)
    print(f"\nWritten to {path}")


def main() -> None:
    """Benchmark, or say in one line what is wrong."""
    arguments = parse_arguments()
    try:
        benchmark(arguments)
    except (ReportError, ValueError, OSError) as error:
        raise SystemExit(f"{error}") from error


if __name__ == "__main__":
    main()
