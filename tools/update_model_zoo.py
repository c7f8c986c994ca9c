#!/usr/bin/env python
"""Add a finished training to MODEL_ZOO.md; without arguments write its tables again from docs/results/.

    python tools/update_model_zoo.py [--name NAME --folder OUTPUT_DIR --command COMMAND [--note NOTE]]
    python tools/update_model_zoo.py --comparison NAME --folder FOLDER [--note NOTE]

Keeps the training's results, time and settings in docs/results/NAME.json, so that no figure is typed in by hand. The
results of tools/run_ablation.py, which stand there too, make tables of their own, and so do those of
tools/benchmark.py, kept in docs/comparison.
"""

import argparse
import json
import os
import re
import statistics
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from rec_attend_d2.benchmark.content import COST, QUALITY, model_table
from rec_attend_d2.benchmark.figures import learning_curves
from rec_attend_d2.benchmark.rendering import Section, render_section
from rec_attend_d2.visualization.curves import read_entries
from rec_attend_d2.whole_files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
BEGIN, END = "<!-- table: tools/update_model_zoo.py -->\n", "<!-- end of table -->\n"
COMPARISONS = ROOT / "docs" / "comparison"
COMPARISON_BEGIN, COMPARISON_END = "<!-- comparisons: tools/update_model_zoo.py -->\n", "<!-- end of comparisons -->\n"
ABLATION_BEGIN, ABLATION_END = "<!-- ablations: tools/update_model_zoo.py -->\n", "<!-- end of ablations -->\n"
# Header of a column and where its figure stands in the results.
COLUMNS = {
    "AP": ("segm", "AP"),
    "AP50": ("segm", "AP50"),
    "SBD": ("counting", "SBD"),
    "\\|DiC\\|": ("counting", "abs_DiC"),
    "count accuracy": ("counting", "count_accuracy"),
    "MWCov": ("counting", "MWCov"),
    "MUCov": ("counting", "MUCov"),
    "box AP50": ("bbox", "AP50"),
    "best box IoU": ("box_counting", "best_box_IoU"),
}
# The same of an ablation, whose results are those of counting, and the variant that the others are compared with.
ABLATION_COLUMNS = {"SBD": "SBD", "\\|DiC\\|": "abs_DiC", "count accuracy": "count_accuracy", "FBD": "FBD"}
BASE_VARIANT = "base"


def machine() -> str:
    """The machine this runs on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} CPU cores, no GPU"


def describe(folder: Path, command: str, note: str) -> dict:
    """Everything MODEL_ZOO.md says of a training, read from its OUTPUT_DIR."""
    cfg = CfgNode.load_yaml_with_base(str(folder / "config.yaml"), allow_unsafe=False)
    entries = read_entries(folder / "metrics.json")
    hours = entries[-1][0]
    memory = [entry["max_mem_mb"] for _, entry in entries if "max_mem_mb" in entry]
    return {
        "command": command,
        "iterations": cfg["SOLVER"]["MAX_ITER"],
        "batch": cfg["SOLVER"]["IMS_PER_BATCH"],
        "input": "{} x {}".format(*cfg["INPUT"]["IMAGE_SIZE"]),
        "training_minutes": round(60 * hours, 1),
        "peak_memory_mb": round(max(memory)) if memory else None,
        "machine": machine(),
        "note": note,
        "metrics": json.loads((folder / "metrics_final.json").read_text()),
    }


def read_results(ablations: bool) -> dict[str, dict]:
    """What docs/results/ holds of single trainings, or of ablations, by name."""
    entries = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    return {name: entry for name, entry in entries.items() if ("variants" in entry) == ablations}


def render_seeds(trainings: Mapping[str, dict]) -> str:
    """Mean and standard deviation of trainings that differ in nothing but their SEED; empty where there are none."""
    groups: dict[str, list[dict]] = {}
    for entry in trainings.values():
        if "SEED" in entry["command"].split():
            groups.setdefault(re.sub(r" SEED \d+", "", entry["command"]), []).append(entry["metrics"]["counting"])
    rows = []
    for command, results in groups.items():
        if len(results) > 1:
            values = [[result[key] for result in results] for key in ABLATION_COLUMNS.values()]
            spread = [f"{statistics.mean(v):.3f} ± {statistics.stdev(v):.3f}" for v in values]
            rows.append([f"`{command}`", str(len(results)), *spread])
    if not rows:
        return ""
    headers = ["recipe", "seeds", *ABLATION_COLUMNS]
    table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
    return f"Mean and standard deviation over seeds:\n\n{table}\n\n"


def render() -> str:
    """The tables and the commands, from docs/results/."""
    trainings = read_results(ablations=False)
    rows, commands = [], []
    for name, entry in trainings.items():
        figures = [entry["metrics"].get(group, {}).get(metric) for group, metric in COLUMNS.values()]
        shown = ["" if figure is None else f"{figure:.3g}" for figure in figures]
        schedule = f"{entry['iterations']} x {entry['batch']}"
        link = f"[{name}](docs/results/{name}.json)"
        memory = entry.get("peak_memory_mb")  # trainings of older versions do not say
        cost = [f"{entry['training_minutes']:.0f} min", f"{memory} MB" if memory else ""]
        rows.append([link, entry["input"], schedule, *cost, *shown])
        notes = f" {entry['note']}" if entry["note"] else ""
        commands.append(f"* {name} ({entry['machine']}).{notes}\n\n      {entry['command']}\n")
    headers = ["training", "input", "iterations x batch", "time", "memory", *COLUMNS]
    table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{render_seeds(trainings)}" + "\n".join(commands)


def _beside_base(figure: float | None, base: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.3f}" if base is None else f"{figure:.3f} ({figure - base:+.3f})"


def render_ablation(name: str, entry: dict) -> str:
    """Heading, table and commands of one ablation."""
    bases = [row["metrics"] for row in entry["variants"] if row["name"] == BASE_VARIANT]
    rows, commands = [], []
    for row in entry["variants"]:
        base = bases[0] if bases and row["name"] != BASE_VARIANT else {}
        figures = [_beside_base(row["metrics"][key], base.get(key)) for key in ABLATION_COLUMNS.values()]
        budget = [f"{row['iterations']} x {row['batch']}", f"{row['training_minutes']:.0f} min"]
        change = f"{row['change']} (base)" if row["name"] == BASE_VARIANT else row["change"]
        rows.append([row["name"], change, *figures, *budget])
        commands.append(f"* {row['name']}:\n\n      {row['command']}\n")
    headers = ["variant", "change", *ABLATION_COLUMNS, "iterations x batch", "time"]
    machines = "; ".join(sorted({row["machine"] for row in entry["variants"]}))
    text = (
        f"## Ablation of {entry['base']}\n\nOne change at a time, one run each ({machines}). In brackets the "
        f"difference to the base; small ones may be chance. Figures: [{name}](docs/results/{name}.json).\n\n"
    )
    table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
    return f"{text}{table}\n\nAll of them:\n\n    {entry['command']}\n\nOne by one:\n\n" + "\n".join(commands)


def render_ablations() -> str:
    """All ablations of docs/results/; empty where there is none."""
    return "\n".join(render_ablation(name, entry) for name, entry in read_results(ablations=True).items())


def describe_comparison(folder: Path, note: str) -> dict:
    """What MODEL_ZOO.md says of a comparison, read from its folder; figures of single images are left out."""
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


def render_comparison(name: str, entry: dict) -> str:
    """Tables, learning curves and command of one comparison."""
    environment, models = entry["environment"], entry["models"]
    where = f"{environment['device_name']}, {environment['threads']} thread(s)"
    words = f"Trained on {entry['train']} from random weights; {where}. {entry['note']}"
    section = Section(
        entry["test"],
        [words.strip()],
        [model_table(models, QUALITY, "Quality (AP in percent)"), model_table(models, COST, "Cost")],
    )
    pictures = f"![Learning curves](docs/comparison/{name}_curves.png)\n\n    {entry['command']}\n"
    return f"{render_section(section, 3)}\n\n{pictures}"


def render_comparisons() -> str:
    """All comparisons of docs/comparison."""
    paths = sorted(COMPARISONS.glob("*.json"))
    return "\n".join(render_comparison(path.stem, json.loads(path.read_text())) for path in paths)


def keep_comparison(name: str, folder: Path, note: str) -> None:
    """Keep the figures and the learning curves of a comparison's folder."""
    entry = describe_comparison(folder, note)
    write_json(COMPARISONS / f"{name}.json", entry)
    curves = {model["name"]: model["training"]["curve"] for model in entry["models"] if model["training"]}
    if curves:
        (COMPARISONS / f"{name}_curves.png").write_bytes(learning_curves(curves))


def replace_between(text: str, begin: str, end: str, content: str) -> str:
    """``text`` with ``content`` between two markers, instead of what stood there."""
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}{content}{end}{after}"


def main() -> None:
    """Store what was given, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", help="name of the row")
    parser.add_argument("--comparison", help="name of a comparison by tools/benchmark.py")
    parser.add_argument("--folder", type=Path, help="OUTPUT_DIR of the training, or folder of the comparison")
    parser.add_argument("--command", help="command that trained it")
    parser.add_argument("--note", default="", help="what a reader has to know besides")
    arguments = parser.parse_args()
    if arguments.name:
        if not (arguments.folder and arguments.command):
            parser.error("--name needs --folder and --command")
        entry = describe(arguments.folder, arguments.command, arguments.note)
        write_json(RESULTS / f"{arguments.name}.json", entry)
    if arguments.comparison:
        if not arguments.folder:
            parser.error("--comparison needs --folder.")
        keep_comparison(arguments.comparison, arguments.folder, arguments.note)
    page = ROOT / "MODEL_ZOO.md"
    text = replace_between(page.read_text(), BEGIN, END, f"\n{render()}\n")
    text = replace_between(text, COMPARISON_BEGIN, COMPARISON_END, f"\n{render_comparisons()}\n")
    ablations = render_ablations()
    content = f"\n{ablations}\n" if ablations else ""
    page.write_text(replace_between(text, ABLATION_BEGIN, ABLATION_END, content))


if __name__ == "__main__":
    main()
