#!/usr/bin/env python
"""Score COCO results of any method as tools/benchmark.py scores its models, and keep the figures.

    python research/score_results.py --dataset fields_val [--output docs/results/others] NAME=FILE[@THRESHOLD] ...

FILE holds predictions for the data set's images in COCO's results format, with RLE masks at the images' size. Those
with scores of at least THRESHOLD count as objects; AP takes them all, however many an image has. Without a THRESHOLD it
is that of a results.json beside FILE, as tools/benchmark.py and research/compare_stardist.py leave it, else 0.

It prints a table and, with --output, writes NAME.json there: metrics, the same by number of objects of the image and by
area and contact of the objects, and what results.json, training.json and ../comparison.json say of the run.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog
from tabulate import tabulate

import rec_attend_d2  # noqa: F401  registers the data sets
from rec_attend_d2.benchmark.groups import quality_by_group
from rec_attend_d2.benchmark.models import read_json
from rec_attend_d2.benchmark.scoring import of_images, score_all
from rec_attend_d2.benchmark.worker import RESULTS, TRAINING, annotated
from rec_attend_d2.evaluation.coco_evaluator import load_truth
from rec_attend_d2.whole_files import write_json

COLUMNS = ("SBD", "abs_DiC", "relative_count_error", "F1", "AP50", "AP")
# Of what stands beside predictions, what is computed here, or too long.
LEFT_OUT = frozenset({"metrics", "images", "threshold", "curve"})


class ScoreError(Exception):
    """Something that was given is wrong; the message says what."""


def read_run(folder: Path) -> dict[str, Any]:
    """What is known of the run that left its predictions in a folder; empty where it left nothing else."""
    run: dict[str, Any] = {}
    comparison = read_json(folder.parent / "comparison.json") or {}
    run.update({key: comparison[key] for key in ("command", "environment") if key in comparison})
    run.update(read_json(folder / RESULTS) or {})
    training = read_json(folder / TRAINING) or run.get("training")
    if training:
        run["training"] = {key: value for key, value in training.items() if key not in LEFT_OUT}
    return {key: value for key, value in run.items() if key not in LEFT_OUT}


def parse_source(text: str) -> tuple[str, Path, float]:
    """Name, file and threshold of NAME=FILE[@THRESHOLD].

    Raises:
        ScoreError: it is nothing of that kind, or there is no such file.
    """
    name, separator, value = text.partition("=")
    path, at, threshold = value.partition("@")
    if not (name and separator and path):
        raise ScoreError(f"'{text}' is no NAME=FILE[@THRESHOLD].")
    if not Path(path).is_file():
        raise ScoreError(f"{name}: {path} does not exist.")
    try:
        if at:
            return name, Path(path), float(threshold)
        return name, Path(path), float((read_json(Path(path).parent / RESULTS) or {}).get("threshold", 0.0))
    except ValueError as error:
        raise ScoreError(f"'{text}': '{threshold}' is no number; give a score in [0, 1] after the @.") from error


def score(dataset: str, name: str, path: Path, threshold: float) -> dict[str, Any]:
    """All figures of a file of predictions.

    Raises:
        ScoreError: the file holds no predictions for the data set.
    """
    records = annotated(dataset)
    try:
        found = of_images(read_json(path), [record["image_id"] for record in records])
        scored = score_all(load_truth(dataset), records, found, threshold)
    except (KeyError, TypeError, ValueError) as error:
        raise ScoreError(f"{path} holds no COCO results with masks for '{dataset}': {error!r}") from error
    groups = quality_by_group(records, {name: scored["images"]})
    return {
        "dataset": dataset,
        "threshold": threshold,
        "objects": sum(image["pred_count"] for image in scored["images"]),
        "true_objects": sum(image["gt_count"] for image in scored["images"]),
        "metrics": scored["metrics"],
        "groups": {key: [_flat(group, name) for group in members] for key, members in groups.items()},
        "run": read_run(path.parent),
    }


def _flat(group: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A group of one model, with its figures beside label and size."""
    return {"label": group["label"], "size": group["size"], **group["models"][name]}


def render(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables: overall, and by number and area of objects."""
    headers = ["method", *COLUMNS, "threshold"]
    rows = [[name, *(r["metrics"][key] for key in COLUMNS), r["threshold"]] for name, r in results.items()]
    tables = [tabulate(rows, headers, "github", floatfmt=".3f")]
    for key, title in (("by_count", "objects of the image"), ("objects_by_area", "pixels of the object")):
        rows = [[name, *group.values()] for name, result in results.items() for group in result["groups"].get(key, [])]
        keys = [list(group) for result in results.values() for group in result["groups"].get(key, [])]
        if keys:
            tables.append(tabulate(rows, ["method", title, *keys[0][1:]], "github", floatfmt=".3f"))
    return "\n\n".join(tables)


def main() -> None:
    """Score, print and write; what is wrong becomes one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="NAME=FILE[@THRESHOLD]", help="COCO results")
    parser.add_argument("--dataset", required=True, help="registered name of the data set")
    parser.add_argument("--output", type=Path, help="folder of NAME.json")
    arguments = parser.parse_args()
    try:
        if arguments.dataset not in DatasetCatalog.list():
            raise ScoreError(f"--dataset is {arguments.dataset}, which is not registered.")
        sources = [parse_source(text) for text in arguments.sources]
        results = {name: score(arguments.dataset, name, path, level) for name, path, level in sources}
    except ScoreError as error:
        sys.exit(f"{error}")
    print(render(results))
    if arguments.output:
        command = shlex.join(["python", "research/score_results.py", *sys.argv[1:]])
        for name, result in results.items():
            write_json(arguments.output / f"{name}.json", {"scored_by": command, **result})


if __name__ == "__main__":
    main()
