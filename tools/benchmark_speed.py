#!/usr/bin/env python
"""How fast a model trains and infers, on synthetic images with random weights, or on pictures with trained ones.

    python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml [--batch-sizes 1,5] [--objects 5,10] \
        [--repeats N] [--warmup N] [--threads N] [--device cpu|cuda] [--output FOLDER or FILE.json] \
        [--compare OLD.json] [--startup] [--growth] [--postprocessing] [--pictures FILE_OR_FOLDER ...] [KEY VALUE ...]

takes any config of this project and, for comparison, Detectron2's own, by path or by its name in the model zoo
(COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml). Images have INPUT.IMAGE_SIZE, also for Detectron2's models; for
the fast model INPUT.WINDOW_SIZE.

* Times are medians (with quartiles) of repeated runs after warm-up.
* FLOPs are counted by torch.utils.flop_counter: matrix products and convolutions of all time steps, forward and
  backward, a multiplication and an addition as two. The machine's peak is the best of several float32 matrix products.
* Peak memory of training on a CPU is that of a fresh process that does nothing else; on CUDA that of the tensors.
* "N objects, then stop": the networks of the paper's model compute as ever, but its scores are replaced, so that N + 1
  steps are taken. "N objects apart, then stop": so do those of the fast model, but it is made to claim N boxes side by
  side in its first glance and nothing in its second, which is the last. Objects that touch would take more glances.
* --pictures measures trained weights (MODEL.WEIGHTS) on pictures, one by one, each scaled as INPUT says, instead
  of synthetic images: seconds of the networks with all their steps, and with post-processing; objects and steps per
  picture. Quartiles are over pictures, of each of which the fastest run counts.
* A Detectron2 detector with random weights finds nothing, which spares it work. Let it find N objects by adding
  MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 TEST.DETECTIONS_PER_IMAGE N.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode

from rec_attend_d2.benchmark import probes, speed, speed_report
from rec_attend_d2.benchmark.measuring import (
    count_flops,
    describe_environment,
    matmul_peak,
    measure,
    seconds_of,
    timing,
    use_threads,
)
from rec_attend_d2.benchmark.models import inference_mapper
from rec_attend_d2.benchmark.processes import environment, last_line
from rec_attend_d2.config import different_settings, input_words, load_config
from rec_attend_d2.data import sees_windows
from rec_attend_d2.prediction.predictor import Predictor, find_weights
from rec_attend_d2.prediction.sources import find_images
from rec_attend_d2.threads import choose_threads
from rec_attend_d2.whole_files import write_json

ROOT = Path(__file__).resolve().parents[1]
# Growth: time steps, and sides of square images, pixels; multiples of 32, which the networks need.
TIME_STEPS = (5, 10, 20, 30, 40)
SIDES = (128, 192, 224, 320, 448)
# Objects of the fast model in an image with this side: few and many, whose times grow differently.
OBJECTS_SIDE, FEW_OBJECTS, MANY_OBJECTS = 1024, (20, 50, 100, 200), (200, 500, 1000, 2000)
# Starting processes is slow, and does not vary as much.
STARTUP_REPEATS = 3
# Lines that Detectron2 logs before the first step, and after it.
BEFORE_STEP, AFTER_STEP = "Starting training from iteration", "total_loss:"
# Detectron2's modules that this package imports, so that the rest of the time is this package's own.
_LIST_MODULES = """
import json, sys, rec_attend_d2
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "detectron2")))
"""
_TIME_IMPORTS = """
import importlib, json, sys, time
start = time.perf_counter()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
between = time.perf_counter()
import rec_attend_d2
print(json.dumps([between - start, time.perf_counter() - between]))
"""
# Any config of this project can be trained on these, which are drawn where there are none.
_DATA = ["DATASETS.TRAIN", "('rosettes_val',)", "DATASETS.TEST", "()", "TEST.EVAL_PERIOD", "0"]


def numbers(text: str) -> list[int]:
    """Numbers separated by commas, sorted, each once. Raises argparse's error unless all are 0 or more."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers separated by commas, such as 1,5")
    return sorted({int(part) for part in parts})


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Files before the first word that is a config key, such as INPUT.IMAGE_SIZE or SEED, and the words from there."""
    keys = load_config("", []).keys()
    first = next((i for i, word in enumerate(words) if word.split(".")[0] in keys and not os.path.exists(word)), None)
    return (words, []) if first is None else (words[:first], words[first:])


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
    parser.add_argument("--threads", type=int, help="CPU threads (default: the fastest number just now)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default MODEL.DEVICE, or the CPU without CUDA")
    parser.add_argument(
        "--output", type=Path, default=Path("output/benchmark_speed"), help="json to write, or a folder for it"
    )
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="print what changed since this report")
    parser.add_argument("--startup", action="store_true", help="also time imports and the start of a training")
    parser.add_argument("--growth", action="store_true", help="also fit how they grow with T, pixels and objects")
    parser.add_argument("--postprocessing", action="store_true", help="also time it alone, for a large image")
    parser.add_argument(
        "--pictures", nargs="+", metavar="FILE", help="measure MODEL.WEIGHTS on images (files, folders, patterns)"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config changes")
    arguments = parser.parse_args()
    if arguments.pictures:
        arguments.pictures, swallowed = split_words(arguments.pictures)
        arguments.opts = swallowed + arguments.opts
        if not arguments.pictures:
            parser.error("--pictures names no image: give files, folders or patterns before KEY VALUE.")
    for name, least in (("repeats", 1), ("warmup", 0), ("threads", 1)):
        if getattr(arguments, name) is not None and getattr(arguments, name) < least:
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
    cfg = load_config(find_config(arguments.config_file), arguments.opts)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but PyTorch finds no CUDA device here. Leave it out, or give cpu.")
    if arguments.device:
        cfg.MODEL.DEVICE = arguments.device
    return cfg


def keys_of(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The settings of ``old`` whose keys ``new`` has: a key that is gone keeps no reports from being compared."""
    kept = {key: value for key, value in old.items() if key in new}
    return {key: keys_of(value, new[key]) if isinstance(value, dict) else value for key, value in kept.items()}


def check_comparable(old: dict[str, Any], new: dict[str, Any], cfg: CfgNode, path: Path) -> None:
    """Raise a ValueError where an older report's figures are of something else than what will be measured.

    Args:
        old: the report.
        new: environment and settings of the one to come.
        cfg: its config.
        path: of the older report.
    """
    different = speed_report.different_environment(old["environment"], new["environment"])
    if old["settings"].get("pictures", []) != new["settings"]["pictures"]:
        different.append("--pictures")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(yaml.safe_dump(keys_of(old["config"], yaml.safe_load(cfg.dump()))))
        # Trained weights may well be compared with others; both reports name them.
        different += [key for key in different_settings(cfg, config) if key != "MODEL.WEIGHTS"]
    if different:
        raise ValueError(f"--compare {path} can't be compared with this run, which has another {', '.join(different)}.")


def plain_path(word: str) -> str:
    """A word of the command line; a path is relative to the project, or its last two parts: nothing of this machine."""
    if not os.path.isabs(word) and not os.path.exists(word):
        return word
    inside = os.path.relpath(word, ROOT)
    return inside if not inside.startswith("..") else "/".join(Path(word).parts[-2:])


def config_of_report(cfg: CfgNode) -> dict[str, Any]:
    """The config as it stands in a report."""
    content = yaml.safe_load(cfg.dump())
    content["MODEL"]["WEIGHTS"] = plain_path(cfg.MODEL.WEIGHTS)
    return content


@torch.no_grad()
def picture_row(cfg: CfgNode, config_file: str, paths: Sequence[str], effort: speed.Effort) -> dict[str, Any]:
    """Row of a report (see :mod:`.speed`) of inference with the weights of MODEL.WEIGHTS.

    Args:
        cfg: with MODEL.WEIGHTS.
        config_file: beside which the weights are looked for too.
        paths: image files, at least one; each is scaled as INPUT says.
        effort: of the repeated runs of a picture the fastest counts; only the first picture is run before them.

    Returns:
        The row, whose ``seconds`` are those of the network with all of its steps, and whose quartiles are over
        pictures. It has besides: ``seconds_with_postprocessing``, the same up to masks at the picture's own size;
        ``objects`` and ``steps`` per picture, means.

    Raises:
        OSError, ValueError: a picture can't be read, or there are no weights that fit.
    """
    predictor = Predictor(cfg, find_weights(cfg, config_file))
    model, mapper, device = predictor.model, inference_mapper(predictor.cfg), predictor.cfg.MODEL.DEVICE
    batches = [[mapper.map_image(predictor.read(path))[0]] for path in paths]
    for _ in range(effort.warmup):
        model(batches[0])
    networks: list[float] = []
    whole: list[float] = []
    flops: list[int] = []
    steps: list[int] = []
    objects: list[int] = []
    for batch in batches:
        run, forward = partial(model.run, batch), partial(model, batch)
        networks.append(min(seconds_of(run, device) for _ in range(effort.repeats)))
        whole.append(min(seconds_of(forward, device) for _ in range(effort.repeats)))
        flops.append(count_flops(run))
        steps.append(len(run()[0][0]))
        objects.append(len(forward()[0]["instances"]))
    seconds = timing(networks)
    return {
        "run": f"pictures, {input_words(predictor.cfg)}",
        "batch": 1,
        "seconds": seconds,
        "images_per_second": 1 / seconds["median"],
        "flops": round(float(np.mean(flops))),
        "steps": float(np.mean(steps)),
        "objects": float(np.mean(objects)),
        "seconds_with_postprocessing": timing(whole),
    }


def import_times(repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Seconds of importing the modules of Detectron2 that this package uses, and of importing this package then."""
    modules = last_line(["-c", _LIST_MODULES], threads)
    pairs = [json.loads(last_line(["-c", _TIME_IMPORTS, modules], threads)) for _ in range(repeats)]
    detectron2, own = zip(*pairs, strict=True)
    return {"import detectron2": timing(list(detectron2)), "import rec_attend_d2": timing(list(own))}


def _start_training(cfg: CfgNode, tool: Path, threads: int) -> tuple[float, float]:
    """Seconds to the start of the first step, and to its end."""
    times: dict[str, float] = {}
    lines = ["no output"]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(cfg.dump())
        options = [*_DATA, "SOLVER.MAX_ITER", "1", "MODEL.WEIGHTS", "", "OUTPUT_DIR", str(Path(folder, "output"))]
        command = [sys.executable, str(tool), "--config-file", str(config), *options]
        start = time.perf_counter()
        with subprocess.Popen(
            command, env=environment(threads), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.strip())
                for words in (BEFORE_STEP, AFTER_STEP):
                    if words in line:
                        times.setdefault(words, time.perf_counter() - start)
    if process.returncode != 0 or len(times) != 2:
        raise RuntimeError(f"{tool.name} failed with exit code {process.returncode}: {lines[-1]}")
    return times[BEFORE_STEP], times[AFTER_STEP]


def training_times(cfg: CfgNode, tool: Path, repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Seconds from starting tools/train_net.py to the start and to the end of its first step, on rosettes.

    A first run, which also draws the data where there are none, does not count.

    Args:
        cfg: of this project.
        tool: path of train_net.py.
        repeats: runs that count.
        threads: of each run.

    Raises:
        ValueError: the config is not one of this project's.
        RuntimeError: a training failed.
    """
    if not probes.is_of_this_project(cfg):
        raise ValueError(
            f"tools/train_net.py does not train MODEL.META_ARCHITECTURE '{cfg.MODEL.META_ARCHITECTURE}', whose start "
            "can't be timed: leave --startup out."
        )
    pairs = [_start_training(cfg, tool, threads) for _ in range(1 + repeats)][1:]
    before, after = zip(*pairs, strict=True)
    return {"train_net.py to the first step": timing(list(before)), "its end": timing(list(after))}


def growth_values(cfg: CfgNode, images: int, effort: speed.Effort) -> dict[str, float]:
    """Seconds of a training step, seconds of inference with as many steps or as many objects as is usual, and bytes
    that training adds to the process."""
    model = speed.build_random_model(cfg)
    step = speed.training_step(cfg, model, images)
    training = measure(step, cfg.MODEL.DEVICE, effort.repeats, effort.warmup)
    inference = next(speed.inference_rows(cfg, model, images, [probes.usual_objects(cfg)], effort))
    return {
        speed.TRAINING: training["median"],
        inference["run"]: inference["seconds"]["median"],
        "training memory": float(speed.training_memory(cfg, images)["increase"]),
    }


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent p of ``value ~ size^p`` for positive values, by least squares on the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _with(cfg: CfgNode, key: str, value: Any) -> CfgNode:
    cfg = cfg.clone()
    cfg.merge_from_list([key, value])
    return cfg


def growth_with_objects(cfg: CfgNode, effort: speed.Effort) -> dict[str, dict]:
    """Seconds of the fast model's inference with few and with many objects in an image of one size, as
    :func:`measure_growth` gives them; the objects stand apart and take one glance."""
    cfg = _with(cfg, "INPUT.WINDOW_SIZE", OBJECTS_SIDE)
    model = speed.build_random_model(cfg)
    result = {}
    for name, counts in (("few objects", FEW_OBJECTS), ("many objects", MANY_OBJECTS)):
        rows = speed.inference_rows(cfg, model, 1, counts, effort)
        seconds = [row["seconds"]["median"] for row in rows]
        result[name] = {
            "rows": [{"size": size, "inference": time} for size, time in zip(counts, seconds, strict=True)],
            "exponents": {"inference": fit_exponent(counts, seconds)},
        }
    return result


def measure_growth(cfg: CfgNode, values: Callable[[CfgNode], dict[str, float]]) -> dict[str, dict]:
    """Values at growing T (of the paper's models) and at growing images, with fitted exponents.

    Args:
        cfg: the config.
        values: from a config to values by name, all positive.

    Returns:
        By what grows ("time steps", "pixels"): ``rows``, each with ``size`` and the values, and ``exponents`` by name.
    """
    series: dict[str, dict[int, CfgNode]] = {}
    if probes.has_time_steps(cfg):
        series["time steps"] = {steps: _with(cfg, "MODEL.REC_ATTEND.TIME_STEPS", steps) for steps in TIME_STEPS}
    key, value = ("WINDOW_SIZE", lambda side: side) if sees_windows(cfg) else ("IMAGE_SIZE", lambda side: [side, side])
    series["pixels"] = {side * side: _with(cfg, f"INPUT.{key}", value(side)) for side in SIDES}
    result = {}
    for name, configs in series.items():
        rows = [{"size": size, **values(changed)} for size, changed in configs.items()]
        sizes = [row["size"] for row in rows]
        exponents = {key: fit_exponent(sizes, [row[key] for row in rows]) for key in rows[0] if key != "size"}
        result[name] = {"rows": rows, "exponents": exponents}
    return result


def optional_parts(arguments: argparse.Namespace, cfg: CfgNode, effort: speed.Effort) -> dict[str, Any]:
    """What --postprocessing, --startup and --growth ask for."""
    parts: dict[str, Any] = {}
    if arguments.postprocessing:
        seconds, found = speed.postprocessing_time(cfg, effort)
        height, width = speed.LARGE_IMAGE
        parts["postprocessing"] = {f"{height} x {width}, {speed.INSTANCES} instances ({found} left)": seconds}
    if arguments.startup:
        repeats = min(effort.repeats, STARTUP_REPEATS)
        starts = training_times(cfg, ROOT / "tools" / "train_net.py", repeats, arguments.threads)
        parts["startup"] = {**import_times(repeats, arguments.threads), **starts}
    if arguments.growth:
        images = (arguments.batch_sizes or [1])[0]
        parts["growth"] = measure_growth(cfg, lambda changed: growth_values(changed, images, effort))
        if sees_windows(cfg):
            parts["growth"] |= growth_with_objects(cfg, effort)
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
    effort = speed.Effort(arguments.repeats, arguments.warmup)
    pictures = find_images(arguments.pictures or [])
    if not pictures:
        cfg.MODEL.WEIGHTS = ""  # they are random
    device = cfg.MODEL.DEVICE
    arguments.threads = arguments.threads or choose_threads(device) or torch.get_num_threads()
    use_threads(arguments.threads)
    batch_sizes = arguments.batch_sizes or sorted({1, cfg.SOLVER.IMS_PER_BATCH})
    content: dict[str, Any] = {
        "schema": speed_report.SCHEMA,
        "command": shlex.join(["python", "tools/benchmark_speed.py", *map(plain_path, sys.argv[1:])]),
        "config_file": plain_path(arguments.config_file),
        "config": config_of_report(cfg),
        "environment": describe_environment(device, arguments.threads),
        "settings": {
            "repeats": arguments.repeats,
            "warmup": arguments.warmup,
            "batch_sizes": [1] if pictures else batch_sizes,
            "pictures": [plain_path(path) for path in pictures],
        },
    }
    old = speed_report.read_report(arguments.compare) if arguments.compare else None
    if old is not None:
        check_comparable(old, content, cfg, arguments.compare)
    content |= {"peak": matmul_peak(device), **optional_parts(arguments, cfg, effort)}
    if pictures:
        content["rows"] = [picture_row(cfg, find_config(arguments.config_file), pictures, effort)]
    else:
        content["rows"] = list(speed.all_rows(cfg, batch_sizes, arguments.objects, effort))
    print(speed_report.tables(content))
    if old is not None:
        print(f"\n{speed_report.comparison_table(old, content)}")
    path = output_path(arguments.output, arguments.config_file)
    write_json(path, content)
    print(f"\nWritten to {path}")


def main() -> None:
    """Benchmark, or say in one line what is wrong."""
    arguments = parse_arguments()
    try:
        benchmark(arguments)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{error}") from error


if __name__ == "__main__":
    main()
