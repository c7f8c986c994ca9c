#!/usr/bin/env python
"""Add a finished training or comparison to MODEL_ZOO.md and README.md; without arguments write their tables.

    python research/update_model_zoo.py [--name NAME --folder OUTPUT_DIR --command COMMAND [--minutes M]
        [--note NOTE]]
    python research/update_model_zoo.py --comparison NAME --folder FOLDER [--note NOTE]

A training's results, time, settings and command are kept in docs/results/NAME.json, a comparison by tools/benchmark.py
in docs/comparison/NAME.json, so that no figure is typed in by hand. Each docs/results/*.json is part of a row;
trainings whose commands differ in nothing but their SEED share one. docs/results/one_command are written by
research/try_training.py, docs/results/others by research/score_results.py, docs/speed/NAME_pictures.json by
tools/benchmark_speed.py --pictures.
"""

import argparse
import json
import os
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from readme_table import write_readme
from tables import (
    COMPARISONS,
    ONE_COMMAND,
    OTHERS,
    RESULTS,
    ROOT,
    SPEEDS,
    first_results,
    markdown,
    mean_and_spread,
    replace_between,
)

from rec_attend_d2.benchmark.figures import learning_curves
from rec_attend_d2.config import input_words
from rec_attend_d2.visualization.curves import read_entries
from rec_attend_d2.whole_files import write_json

BEGIN, END = "<!-- trainings: research/update_model_zoo.py -->\n", "<!-- end of trainings -->\n"
COMPARISON_BEGIN, COMPARISON_END = (
    "<!-- comparisons: research/update_model_zoo.py -->\n",
    "<!-- end of comparisons -->\n",
)
OTHERS_BEGIN, OTHERS_END = "<!-- others: research/update_model_zoo.py -->\n", "<!-- end of others -->\n"
ONE_COMMAND_BEGIN, ONE_COMMAND_END = (
    "<!-- one command: research/update_model_zoo.py -->\n",
    "<!-- end of one command -->\n",
)
# Header of a column, the figure in a json of research/score_results.py, and how it is shown.
OTHERS_COLUMNS = {
    "SBD": ("SBD", "{:.3f}"),
    "\\|DiC\\|": ("abs_DiC", "{:.2f}"),
    "count error": ("relative_count_error", "{:.1%}"),
    "F1": ("F1", "{:.3f}"),
    "AP": ("AP", "{:.1f}"),
    "AP50": ("AP50", "{:.1f}"),
}
SPEED_BEGIN, SPEED_END = "<!-- speed: research/update_model_zoo.py -->\n", "<!-- end of speed -->\n"
# Header of a column, where its figure stands in the results, and how it is shown.
COLUMNS = {
    "SBD": ("counting", "SBD", "{:.3f}"),
    "\\|DiC\\|": ("counting", "abs_DiC", "{:.2f}"),
    "count accuracy": ("counting", "count_accuracy", "{:.2f}"),
    "AP": ("segm", "AP", "{:.1f}"),
    "AP50": ("segm", "AP50", "{:.1f}"),
}


def describe(folder: Path, command: str, note: str, minutes: float | None = None) -> dict[str, Any]:
    """Everything that is kept of a training, read from its OUTPUT_DIR.

    Args:
        folder: OUTPUT_DIR.
        command: that was called.
        note: to be kept.
        minutes: of CPU time, where other programs ran beside it; else those of its iterations count.
    """
    cfg = CfgNode.load_yaml_with_base(str(folder / "config.yaml"), allow_unsafe=False)
    entries = read_entries(folder / "metrics.json")
    memory = [entry["max_mem_mb"] for _, entry in entries if "max_mem_mb" in entry]
    gpus = torch.cuda.device_count()
    return {
        "command": command,
        "iterations": cfg["SOLVER"]["MAX_ITER"],
        "batch": cfg["SOLVER"]["IMS_PER_BATCH"],
        "input": input_words(cfg),
        "training_minutes": round(60 * entries[-1][0] if minutes is None else minutes, 1),
        "peak_memory_mb": round(max(memory)) if memory else None,
        "machine": f"{gpus} x {torch.cuda.get_device_name(0)}" if gpus else f"{os.cpu_count()} CPU cores, no GPU",
        "note": note,
        "metrics": json.loads((folder / "metrics_final.json").read_text()),
    }


def _row(trainings: Mapping[str, dict]) -> list[str]:
    """Row of the trainings of one recipe, by name."""
    entries = list(trainings.values())
    name = re.sub(r"_seed\d+$", "", min(trainings, key=len))
    links = " ".join(f"[{number}](docs/results/{n}.json)" for number, n in enumerate(trainings, start=1))
    memory = max((entry.get("peak_memory_mb") or 0 for entry in entries), default=0)  # older trainings do not say
    return [
        f"{name} {links}",
        entries[0]["input"],
        f"{entries[0]['iterations']} x {entries[0]['batch']}",
        mean_and_spread([statistics.mean(entry["training_minutes"] for entry in entries)], "{:.0f}"),
        f"{memory}" if memory else "",
        *(
            mean_and_spread((first_results(entry["metrics"]).get(group, {}).get(metric) for entry in entries), template)
            for group, metric, template in COLUMNS.values()
        ),
    ]


def render_trainings() -> str:
    """A row per recipe of docs/results."""
    recipes: dict[str, dict[str, dict]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        entry = json.loads(path.read_text())
        recipes.setdefault(re.sub(r" SEED \d+", "", entry["command"]), {})[path.stem] = entry
    headers = ["training", "input", "iterations x batch", "minutes", "memory, MB", *COLUMNS]
    return markdown(headers, map(_row, recipes.values()))


def render_one_command() -> str:
    """A row per json of research/try_training.py: a model of one command beside the recipe by hand."""
    rows = []
    for path in sorted(ONE_COMMAND.glob("*.json")):
        content = json.loads(path.read_text())
        measured, by_hand = content["measured"], content["by_hand"]
        rows.append(
            [
                f"{path.stem} [all](docs/results/one_command/{path.name})",
                f"`{content['command']}`",
                f"{content['minutes']:.1f} ({content['cpu_minutes']:.1f})",
                f"{measured['SBD']:.3f}",
                f"{measured['abs_DiC']:.2f}",
                f"{measured['relative_count_error']:.1%}",
                f"{content['recipe']}: {by_hand['SBD']:.3f} / {by_hand['abs_DiC']:.2f}",
            ]
        )
    headers = ["data", "command", "minutes (CPU)", "SBD", "\\|DiC\\|", "count error", "by hand: SBD / \\|DiC\\|"]
    return markdown(headers, rows)


def render_others() -> str:
    """A row per json of docs/results/others, by data set."""
    rows = []
    for path in OTHERS.glob("*.json"):
        entry = json.loads(path.read_text())
        method, seconds = path.stem.rsplit("_", 1)[0], (entry.get("run") or {}).get("seconds_per_image", {})
        figures = [template.format(entry["metrics"][name]) for name, template in OTHERS_COLUMNS.values()]
        link = f"{method} [all](docs/results/others/{path.name})"
        rows.append([entry["dataset"], link, *figures, f"{seconds['median']:.2f}" if seconds else ""])
    return markdown(["data", "method", *OTHERS_COLUMNS, "s/image"], sorted(rows))


def describe_comparison(folder: Path, note: str) -> dict[str, Any]:
    """What is kept of a comparison, read from its folder: all but the figures of single images."""
    content = json.loads((folder / "comparison.json").read_text())
    models = [
        {
            "name": model["name"],
            "training": model["training"],
            "results": {key: value for key, value in model["results"].items() if key != "images"},
        }
        for model in content["models"]
    ]
    kept = {key: content[key] for key in ("command", "environment", "train", "test")}
    return {**kept, "note": note, "models": models}


def render_comparisons() -> str:
    """A row per model of docs/comparison."""
    rows = []
    for path in sorted(COMPARISONS.glob("*.json")):
        for model in json.loads(path.read_text())["models"]:
            results, training = model["results"], model["training"] or {}
            metrics = results["metrics"]
            row = [
                f"{path.stem} [all](docs/comparison/{path.name}) [curves](docs/comparison/{path.stem}_curves.png)",
                model["name"],
                mean_and_spread([training["seconds"] / 60 if training else None], "{:.0f}"),
                *(mean_and_spread([metrics[metric]], template) for _, metric, template in COLUMNS.values()),
                f"{results['seconds_per_image']['median']:.2f}",
                f"{results['parameters'] / 1e6:.1f}",
            ]
            rows.append(row)
    return markdown(["comparison", "model", "minutes", *COLUMNS, "s/image", "million parameters"], rows)


def render_speeds() -> str:
    """A row per docs/speed/*_pictures.json: a trained model's inference, timed on real pictures."""
    rows = []
    for path in sorted(SPEEDS.glob("*_pictures.json")):
        content = json.loads(path.read_text())
        environment = content["environment"]
        for row in content["rows"]:
            seconds = row["seconds_with_postprocessing"]
            cells = [
                f"{path.stem.removesuffix('_pictures')} [command](docs/speed/{path.name})",
                row["run"].removeprefix("pictures, "),
                str(len(content["settings"]["pictures"])),
                f"{row['objects']:.1f}",
                f"{row['steps']:.1f}",
                f"{row['seconds']['median']:.3f}",
                f"{seconds['median']:.3f}",
                f"{environment['threads']} x {environment['cpu_name']}",
            ]
            rows.append(cells)
    headers = [
        "pictures of",
        "network input",
        "pictures",
        "objects found",
        "glances",
        "s/picture",
        "with full-size masks",
    ]
    return markdown([*headers, "threads"], rows)


def keep_comparison(name: str, folder: Path, note: str) -> None:
    """Keep the figures and the learning curves of a comparison's folder."""
    entry = describe_comparison(folder, note)
    write_json(COMPARISONS / f"{name}.json", entry)
    curves = {model["name"]: model["training"]["curve"] for model in entry["models"] if model["training"]}
    if curves:
        (COMPARISONS / f"{name}_curves.png").write_bytes(learning_curves(curves))


def main() -> None:
    """Store what was given, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", help="name of the training")
    parser.add_argument("--comparison", help="name of a comparison by tools/benchmark.py")
    parser.add_argument("--folder", type=Path, help="OUTPUT_DIR of the training, or folder of the comparison")
    parser.add_argument("--command", help="command that trained it")
    parser.add_argument("--minutes", type=float, help="measured CPU minutes, where other programs ran beside it")
    parser.add_argument("--note", default="", help="what a reader has to know besides")
    arguments = parser.parse_args()
    if arguments.name:
        if not (arguments.folder and arguments.command):
            parser.error("--name needs --folder and --command")
        entry = describe(arguments.folder, arguments.command, arguments.note, arguments.minutes)
        write_json(RESULTS / f"{arguments.name}.json", entry)
    if arguments.comparison:
        if not arguments.folder:
            parser.error("--comparison needs --folder.")
        keep_comparison(arguments.comparison, arguments.folder, arguments.note)
    page = ROOT / "MODEL_ZOO.md"
    text = replace_between(page.read_text(), BEGIN, END, f"\n{render_trainings()}\n\n")
    text = replace_between(text, COMPARISON_BEGIN, COMPARISON_END, f"\n{render_comparisons()}\n\n")
    text = replace_between(text, OTHERS_BEGIN, OTHERS_END, f"\n{render_others()}\n\n")
    text = replace_between(text, ONE_COMMAND_BEGIN, ONE_COMMAND_END, f"\n{render_one_command()}\n\n")
    text = replace_between(text, SPEED_BEGIN, SPEED_END, f"\n{render_speeds()}\n\n")
    page.write_text(text)
    write_readme()


if __name__ == "__main__":
    main()
