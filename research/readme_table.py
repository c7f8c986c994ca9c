"""README.md's table of results, made of the files in docs/results, docs/comparison and docs/speed alone.

Each row is one method on one data set; where several files have the same one, the first of these counts: a training of
this project, docs/results/others, docs/comparison. Models of rec-attend train (docs/results/one_command) have rows of
their own. What has no file has no row.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tables import (
    COMPARISONS,
    ONE_COMMAND,
    OTHERS,
    PUBLISHED,
    RESULTS,
    ROOT,
    SPEEDS,
    first_results,
    markdown,
    mean_and_spread,
    replace_between,
)

BEGIN, END = "<!-- results: research/update_model_zoo.py -->\n", "<!-- end of results -->\n"
OURS = "this project"
METHODS = {"mask_rcnn": "Mask R-CNN", "stardist": "StarDist"}
# Data set, the training that stands for this project there, and what to add to its name.
TRAININGS = (
    ("nuclei_val", "nuclei_fast", ""),
    ("fields_val", "fields_fast", ""),
    ("fields_val", "fields_long", ", twice as long: published"),
    ("cells_val", "cells_fast", ", published"),
    ("rosettes_val", "rosettes_fast", ", published"),
)
ORDER = {"nuclei": 0, "fields": 1, "cells": 2, "rosettes": 3}
# Header of a column and how its figure is shown.
COLUMNS = {
    "minutes": "{:.0f}",
    "SBD": "{:.3f}",
    "\\|DiC\\|": "{:.2f}",
    "AP50": "{:.1f}",
    "s/picture": "{:.2f}",
}


@dataclass
class Row:
    """A method on a data set.

    Attributes:
        data: name of the data set, without its split.
        method: its name.
        link: file that has the command, relative to the project.
        figures: of each seed, by header; what is missing is unknown.
        made_by: word of the link.
    """

    data: str
    method: str
    link: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    made_by: str = "command"

    def cells(self) -> list[str]:
        """The row's texts."""
        shown = [mean_and_spread(self.figures.get(name) or [None], form) for name, form in COLUMNS.items()]
        return [self.data, self.method, *shown, f"[{self.made_by}]({self.link})"]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _link(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _short(dataset: str) -> str:
    return dataset.removesuffix("_val")


def _scores(metrics: dict[str, Any]) -> dict[str, list[float]]:
    """The columns of metrics that are in one dictionary."""
    known = {"SBD": metrics.get("SBD"), "\\|DiC\\|": metrics.get("abs_DiC"), "AP50": metrics.get("AP50")}
    return {name: [value] for name, value in known.items() if value is not None}


def _own_speed(data: str) -> list[float]:
    """Seconds a picture of the published weights on real ones, with masks of full size."""
    path = SPEEDS / f"{data}_pictures.json"
    return [_read(path)["rows"][0]["seconds_with_postprocessing"]["median"]] if path.is_file() else []


def trainings() -> Iterator[Row]:
    """This project's, seeds together."""
    for dataset, name, words in TRAININGS:
        paths = sorted(RESULTS.glob(f"{name}.json")) + sorted(RESULTS.glob(f"{name}_seed*.json"))
        row = Row(_short(dataset), OURS + words, _link(paths[0]))
        for path in paths:
            entry = _read(path)
            results = entry["metrics"].get(dataset) or first_results(entry["metrics"])
            scores = _scores({**results["counting"], "AP50": results["segm"]["AP50"]})
            for column, values in scores.items():
                row.figures.setdefault(column, []).extend(values)
            row.figures.setdefault("minutes", []).append(entry["training_minutes"])
        row.figures["minutes"] = [sum(row.figures["minutes"]) / len(paths)]
        row.figures["s/picture"] = _own_speed(row.data)
        yield row


def others() -> Iterator[Row]:
    """Other methods, whose predictions were scored by research/score_results.py."""
    for path in sorted(OTHERS.glob("*.json")):
        method = path.stem.rsplit("_", 1)[0]
        if method == "ours":
            continue
        entry = _read(path)
        run = entry.get("run") or {}
        row = Row(_short(entry["dataset"]), METHODS.get(method, method), _link(path), _scores(entry["metrics"]))
        if "seconds" in run.get("training", {}):
            row.figures["minutes"] = [run["training"]["seconds"] / 60]
        if "seconds_per_image" in run:
            row.figures["s/picture"] = [run["seconds_per_image"]["median"]]
        yield row


def comparisons() -> Iterator[Row]:
    """Other methods, compared by tools/benchmark.py."""
    for path in sorted(COMPARISONS.glob("*.json")):
        entry = _read(path)
        for model in entry["models"]:
            if model["name"] in METHODS:
                results = model["results"]
                row = Row(_short(entry["test"]), METHODS[model["name"]], _link(path), _scores(results["metrics"]))
                row.figures["s/picture"] = [results["seconds_per_image"]["median"]]
                if model["training"]:
                    row.figures["minutes"] = [model["training"]["seconds"] / 60]
                yield row


def one_command() -> Iterator[Row]:
    """Models of rec-attend train, whose minutes are all that the command takes."""
    for path in sorted(ONE_COMMAND.glob("*.json")):
        entry = _read(path)
        row = Row(path.stem, f"{OURS}, `rec-attend train`", _link(path), _scores(entry["measured"]))
        row.figures["minutes"] = [entry["minutes"]]
        yield row


def published() -> Iterator[Row]:
    """The paper's figures, of the columns that the table has."""
    path = PUBLISHED / "paper.json"
    for data, metrics in _read(path)["results"].items():
        scale = {"SBD": 0.01}
        row = Row(f"{data}, test", "the paper", _link(path), made_by="source")
        row.figures = _scores({name: value * scale.get(name, 1) for name, value in metrics.items()})
        if row.figures:
            yield row


def render_results() -> str:
    """README.md's table."""
    rows: dict[tuple[str, str], Row] = {}
    for source in (trainings, one_command, others, comparisons, published):
        for row in source():
            rows.setdefault((row.data, row.method), row)
    ordered = sorted(rows.values(), key=lambda row: ORDER.get(row.data, len(ORDER)))
    return markdown(["data", "method", *COLUMNS, "made by"], [row.cells() for row in ordered])


def write_readme() -> None:
    """Write the table into README.md."""
    page = ROOT / "README.md"
    page.write_text(replace_between(page.read_text(), BEGIN, END, f"\n{render_results()}\n\n"))
