#!/usr/bin/env python
"""Train on data sets as a new user does, by ``rec-attend train`` with nothing but paths, beside the recipes by hand.

    python research/try_training.py --folder SCRATCH [--sets nuclei cells rosettes] [--minutes 20]

Pictures are written as people have them: nuclei and rosettes with label images, cells as COCO json. Training sees the
training pictures, of which it keeps a part for its own validation; ``rec-attend evaluate`` then measures the model on
the data set's validation pictures, which the recipes by hand are measured on. Figures go to docs/results/one_command,
and research/update_model_zoo.py writes the table of MODEL_ZOO.md. What is in SCRATCH already is not done again.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
from detectron2.data import DatasetCatalog, MetadataCatalog

import rec_attend_d2  # noqa: F401  registers the data sets
from rec_attend_d2.evaluation.counting_evaluator import true_masks
from rec_attend_d2.whole_files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
# The recipe by hand of each data set, and the form in which a new user has its annotations.
SETS = {"nuclei": ("nuclei_fast", "labels"), "cells": ("cells_fast", "coco"), "rosettes": ("rosettes_fast", "labels")}


def write_labels(dataset: str, folder: Path) -> list[str]:
    """Pictures and label images of a data set; returns the options that name them."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for record in DatasetCatalog.get(dataset):
        source = Path(record["file_name"])
        shutil.copy(source, folder / "images" / source.name)
        labels = true_masks(record, iscrowd=0).label_image().astype(np.uint16)
        tifffile.imwrite(folder / "labels" / f"{source.stem}.tif", labels, compression="zlib")
    return ["--images", str(folder / "images"), "--labels", str(folder / "labels")]


def coco_options(dataset: str) -> list[str]:
    """The options that name a data set's own files."""
    metadata = MetadataCatalog.get(dataset)
    return ["--images", metadata.image_root, "--coco", metadata.json_file]


def run(words: list[str], folder: Path) -> dict[str, float]:
    """Run a command in a folder; gives its minutes by the wall clock and of all its processes together."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "rec_attend_d2.cli", *words], cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"minutes": (time.perf_counter() - start) / 60, "cpu_minutes": cpu / 60}


def try_set(name: str, scratch: Path, minutes: float) -> dict:
    """Train and measure one data set; figures of both."""
    recipe, form = SETS[name]
    options = {}
    for split in ("train", "val"):
        dataset = f"{name}_{split}"
        options[split] = write_labels(dataset, scratch / dataset) if form == "labels" else coco_options(dataset)
    times = run(["train", *options["train"], "--output", name, "--minutes", f"{minutes:g}"], scratch)
    used = scratch / name / "minutes.json"
    if not used.is_file():
        write_json(used, times)
    run(["evaluate", "--model", name, *options["val"], "--output", f"{name}_report"], scratch)
    summary = json.loads((scratch / f"{name}_report" / "evaluation.json").read_text())["summary"]
    own = json.loads((scratch / name / "evaluation.json").read_text())["summary"]
    by_hand = json.loads((RESULTS / f"{recipe}.json").read_text())["metrics"]["counting"]
    keys = ("SBD", "abs_DiC", "relative_count_error", "F1", "AP", "AP50", "pictures")
    return {
        "command": f"rec-attend train {form_words(form)} --output model",
        **json.loads(used.read_text()),
        "measured": {key: summary[key] for key in keys},
        "own_validation": {key: own[key] for key in keys},
        "recipe": recipe,
        "by_hand": {key: by_hand[key] for key in ("SBD", "abs_DiC")},
    }


def form_words(form: str) -> str:
    """The options as a user writes them."""
    return "--images images --labels labels" if form == "labels" else "--images images --coco train.json"


def main() -> None:
    """Try the data sets one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for data and models")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="default: all")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training, all together (default 20)")
    parser.add_argument("--output", type=Path, default=RESULTS / "one_command", help="folder of the json files")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets:
        content = try_set(name, arguments.folder.absolute(), arguments.minutes)
        write_json(arguments.output / f"{name}.json", content)
        print(name, json.dumps(content["measured"]), json.dumps(content["by_hand"]))


if __name__ == "__main__":
    main()
