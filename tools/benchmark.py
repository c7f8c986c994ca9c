#!/usr/bin/env python
"""Train models of different kinds on equal terms, evaluate them alike, and write a report.

    python tools/benchmark.py [NAME=]CONFIG [NAME=]CONFIG ... --output FOLDER (--minutes M | --iterations N)
        [--train DATASET --test DATASET] [--weights NAME=FILE ...] [--threads N] [--device cpu|cuda] [--seed N]
        [--threshold-images N] [--points N] [--recipe CONFIG] [--opts KEY VALUE ...]

Configs are this project's, its Mask R-CNN baselines (configs/baselines) or any other of Detectron2 that finds instance
masks, by path or by their name in the model zoo. Data sets are by default those of the first config.

* All trainings have the same budget: minutes of training iterations (evaluations and checkpoints do not count), or
  iterations. The learning rate's schedule is squeezed to it. A model of --weights is not trained.
* Detectron2's models see the same training images as the first of this project's configs, or that of --recipe: its
  augmentations, contrast and loader; their size, and the windows cut out of them, are their own config's.
* Which predictions count as objects is decided alike for all: scores are cut at the threshold with the largest mean SBD
  on training images. AP takes all predictions.
* Every part runs in a process of its own and leaves its results in FOLDER/NAME. What is done is not done again, and an
  interrupted training goes on from its last checkpoint with the time it has used.

It writes FOLDER/comparison.json, report.html (one file that needs no network) and report.md.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from benchmark_speed import find_config, plain_path
from detectron2.config import CfgNode

from rec_attend_d2.benchmark import worker
from rec_attend_d2.benchmark.measuring import describe_environment
from rec_attend_d2.benchmark.models import POINTS, ComparisonError, ModelSpec, check_plain, read_json
from rec_attend_d2.benchmark.probes import is_of_this_project
from rec_attend_d2.benchmark.processes import environment
from rec_attend_d2.benchmark.report import HTML, JSON, MARKDOWN, write_report
from rec_attend_d2.config import different_settings, load_config
from rec_attend_d2.whole_files import write_json

CLOCKS = ("wall", "cpu")
THRESHOLD_IMAGES = 30
SCHEMA = 1
# A model's config as it was when its folder was made.
SETTINGS = "settings.yaml"
# What of a model may differ when a comparison goes on: where it is computed, and how often it is looked at, says
# nothing about what it is.
PLACE = frozenset({"device", "points"})


def named(text: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE; the name is empty where there is none."""
    name, separator, value = text.partition("=")
    return (name, value) if separator else ("", text)


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="[NAME=]CONFIG", type=named, help="config files")
    parser.add_argument("--output", type=Path, required=True, help="folder of everything that is written")
    parser.add_argument("--minutes", type=float, help="of training iterations, for each model")
    parser.add_argument("--iterations", type=int, help="of training, for each model")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="of --minutes; cpu = of all threads, for a machine that does other work too (default wall)",
    )
    parser.add_argument("--train", help="data set to train on; default that of the first config")
    parser.add_argument("--test", help="data set to evaluate on; default that of the first config")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", type=named, help="finished weights")
    parser.add_argument(
        "--trust-weights",
        action="store_true",
        help="load weights that are pickles, such as those of Detectron2's zoo: they can run any code",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default cuda where there is one")
    parser.add_argument("--seed", type=int, default=1, help="of all trainings (default 1)")
    parser.add_argument(
        "--threshold-images",
        type=int,
        default=THRESHOLD_IMAGES,
        help=f"training images on which the score threshold is chosen, at most (default {THRESHOLD_IMAGES})",
    )
    parser.add_argument("--points", type=int, default=POINTS, help=f"evaluations during a training (default {POINTS})")
    parser.add_argument("--recipe", help="config of this project that says how training images are made")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config changes of all models")
    arguments = parser.parse_args()
    for name in ("threads", "threshold_images", "points"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; give at least 1.")
    if not all(name and path for name, path in arguments.weights):
        parser.error("--weights takes NAME=FILE, with the name of a model.")
    return arguments


def model_names(configs: list[tuple[str, str]]) -> list[str]:
    """A name per config: the one given, or its folder's and file's.

    Raises:
        ComparisonError: a name can't name a folder, or two are the same.
    """
    names = [name or "_".join(Path(path).with_suffix("").parts[-2:]) for name, path in configs]
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ComparisonError(f"'{name}' can't name a folder. Use letters, digits, _ and - in NAME=CONFIG.")
        if names.count(name) > 1:
            raise ComparisonError(f"Two models are named '{name}'. Name them: NAME=CONFIG.")
    return names


def read_config(path: str, options: list[str]) -> CfgNode:
    """A config; a ComparisonError where it is wrong."""
    try:
        return load_config(path, options)
    except (AssertionError, KeyError, OSError, ValueError) as error:
        raise ComparisonError(f"{path}: {error}") from error


def data_set(given: str | None, cfg: CfgNode, key: str) -> str:
    """Name of the data set to train or test on; a ComparisonError where there is none, or not one."""
    if given:
        return given
    if len(cfg.DATASETS[key]) != 1:
        raise ComparisonError(f"The first config's DATASETS.{key} is {cfg.DATASETS[key]}: name one by --{key.lower()}.")
    return cfg.DATASETS[key][0]


def find_recipe(arguments: argparse.Namespace, paths: list[str], configs: list[CfgNode]) -> str:
    """Config that says how training images are made: that of --recipe, the first of this project's, or "".

    Raises:
        ComparisonError: that of --recipe is wrong, or none of this project's.
    """
    if not arguments.recipe:
        return next((path for path, cfg in zip(paths, configs, strict=True) if is_of_this_project(cfg)), "")
    if not is_of_this_project(read_config(arguments.recipe, [])):
        raise ComparisonError(f"--recipe names {arguments.recipe}, which is no config of this project.")
    return arguments.recipe


def make_specs(arguments: argparse.Namespace) -> list[ModelSpec]:
    """The models to compare. Raises a ComparisonError where something is wrong."""
    names = model_names(arguments.configs)
    weights = {name: path for name, path in arguments.weights}
    unknown = sorted(weights.keys() - set(names))
    if unknown:
        raise ComparisonError(f"--weights names {', '.join(unknown)}; the models are {', '.join(names)}.")
    for path in weights.values():
        if not Path(path).is_file():
            raise ComparisonError(f"--weights names '{path}', which does not exist.")
    trained = set(names) - weights.keys()
    limits = [limit for limit in (arguments.minutes, arguments.iterations) if limit is not None]
    if trained and (len(limits) != 1 or limits[0] <= 0):
        raise ComparisonError("A budget is either --minutes or --iterations, more than 0.")
    paths = [find_config(path) for _, path in arguments.configs]
    configs = [read_config(path, arguments.opts) for path in paths]
    if not arguments.trust_weights:
        for path in [*weights.values(), *(cfg.MODEL.WEIGHTS for cfg in configs if not is_of_this_project(cfg))]:
            check_plain(path)
    recipe = find_recipe(arguments, paths, configs)
    train, test = (data_set(getattr(arguments, key.lower()), configs[0], key) for key in ("TRAIN", "TEST"))
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return [
        ModelSpec(
            name=name,
            config_file=path,
            options=list(map(str, arguments.opts)),
            train=train,
            test=test,
            minutes=arguments.minutes if name in trained else None,
            iterations=arguments.iterations if name in trained else None,
            clock=arguments.clock,
            weights=weights.get(name, ""),
            recipe=recipe,
            threads=arguments.threads,
            device=device,
            seed=arguments.seed,
            threshold_images=arguments.threshold_images,
            points=arguments.points,
        )
        for name, path in zip(names, paths, strict=True)
    ]


def prepare(spec: ModelSpec, folder: Path) -> None:
    """Check a model's config and make its folder.

    Raises:
        ComparisonError: something is wrong, or the folder holds another model.
    """
    cfg, content, old = spec.config(), asdict(spec), read_json(folder / worker.MODEL)
    if old is not None:
        different = sorted(key for key in content if key not in PLACE and old.get(key) != content[key])
        # Of the same options and config file, which may have been edited since.
        different = different or different_settings(cfg, folder / SETTINGS)
        if different:
            raise ComparisonError(
                f"{folder} holds a model with another {', '.join(different)}. Choose another --output, or remove it."
            )
    write_json(folder / worker.MODEL, content)
    (folder / SETTINGS).write_text(cfg.dump())


def run_part(part: str, folder: Path, threads: int) -> None:
    """Do a part of a model's comparison in a process of its own; what it prints is added to FOLDER/PART.log.

    Raises:
        ComparisonError: it failed.
    """
    log = folder / f"{part}.log"
    command = [sys.executable, "-W", "ignore", "-m", worker.__name__, part, str(folder)]
    with log.open("a") as file:
        code = subprocess.run(command, env=environment(threads), stdout=file, stderr=subprocess.STDOUT).returncode
    if code != 0:
        lines = log.read_text().splitlines() or ["it is empty"]
        raise ComparisonError(f"{folder.name}: {part} failed with exit code {code}, see {log}: {lines[-1]}")


def run_model(spec: ModelSpec, folder: Path) -> None:
    """Train and evaluate a model as far as that is not done. Raises a ComparisonError where a part fails."""
    for part, (_, done) in worker.PARTS.items():
        if part == "train" and spec.weights:
            continue
        if (folder / done).is_file():
            print(f"{spec.name}: {part} is done", flush=True)
            continue
        print(f"{spec.name}: {part} ...", flush=True)
        run_part(part, folder, spec.threads)


def gather(specs: Sequence[ModelSpec], output: Path) -> list[dict[str, Any]]:
    """Name, spec, results and training (None with finished weights) of the models, in their order."""
    return [
        {
            "name": spec.name,
            "spec": asdict(spec),
            "training": read_json(output / spec.name / worker.TRAINING),
            "results": read_json(output / spec.name / worker.RESULTS),
        }
        for spec in specs
    ]


def compare(arguments: argparse.Namespace) -> None:
    """Train and evaluate what is missing, and write the report."""
    specs = make_specs(arguments)
    for spec in specs:
        prepare(spec, arguments.output / spec.name)  # what is wrong is said before anything is trained
    for spec in specs:
        run_model(spec, arguments.output / spec.name)
    content = {
        "schema": SCHEMA,
        "command": shlex.join(["python", "tools/benchmark.py", *map(plain_path, sys.argv[1:])]),
        "environment": describe_environment(specs[0].device, arguments.threads),
        "train": specs[0].train,
        "test": specs[0].test,
        "models": gather(specs, arguments.output),
    }
    write_report(content, arguments.output)
    print(f"Written to {arguments.output}: {HTML}, {MARKDOWN}, {JSON}")


def main() -> None:
    """Compare; what is wrong becomes one line."""
    try:
        compare(parse_arguments())
    except ComparisonError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
