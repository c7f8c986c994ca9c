#!/usr/bin/env python
"""Write the table of speed of docs/speed.md from a report of tools/benchmark_speed.py.

    python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml --batch-sizes 1,5 --objects 5 --threads 2 \
        --startup --postprocessing --output docs/speed/cvppp.json
    python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml --batch-sizes 1 --objects 5 --threads 2 \
        --growth --output docs/speed/cvppp_growth.json
    python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml --batch-sizes 5 --objects 5 --threads 2 \
        --output docs/speed/cvppp_recomputed.json MODEL.REC_ATTEND.TRAINING.RECOMPUTE True
    python research/update_speed_table.py [--report FILE] [--recomputed FILE] [--growth FILE]
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tables import ROOT, replace_between
from tabulate import tabulate

from rec_attend_d2.benchmark.speed import TRAINING
from rec_attend_d2.benchmark.speed_report import peak_rate, read_report, share_of_peak

REPORT = ROOT / "docs" / "speed" / "cvppp.json"
RECOMPUTED = ROOT / "docs" / "speed" / "cvppp_recomputed.json"
GROWTH = ROOT / "docs" / "speed" / "cvppp_growth.json"
TRIALS = ROOT / "docs" / "speed" / "paper_trials.json"
TRIALS_BEGIN = "<!-- trials: research/update_speed_table.py -->"
TRIALS_END = "<!-- end of trials -->"
BEGIN = "<!-- speed: research/update_speed_table.py -->"
END = "<!-- end of speed -->"

# What the original code took with the same recipe (224 x 224, 21 steps, float32) on two CPU cores: seconds by run and
# batch size, to the first training step, and the peak memory of training with batch 5 in bytes.
ORIGINAL_SECONDS = {("training step", 5): 15.1, ("inference, all steps", 1): 0.86, ("inference, all steps", 5): 4.0}
ORIGINAL_START = 100.0
ORIGINAL_PEAK = 6.7e9
FIRST_STEP, FIRST_STEP_END = "train_net.py to the first step", "its end"


def _line(what: str, original: float | None, own: float, unit: str, share: str = "") -> dict[str, str]:
    return {
        "": what,
        "original": f"{original:.3g} {unit}" if original else "",
        "this project": f"{own:.3g} {unit}",
        "times less": f"{original / own:.1f}" if original else "",
        "share of the machine's peak": share,
    }


def _run_line(row: Mapping[str, Any], mode: str = "", share: str = "") -> dict[str, str]:
    """Line of a report's row beside what the original took; ``mode`` is what differs from the usual way to run it."""
    name = ", ".join(filter(None, [row["run"], f"batch {row['batch']}", mode]))
    return _line(name, ORIGINAL_SECONDS.get((row["run"], row["batch"])), row["seconds"]["median"], "s", share)


def _memory_lines(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Peak memory of training with batch 5, which the original's is known of."""
    if "memory" not in row or row["batch"] != 5:
        return []
    memory = row["memory"]
    return [
        _line("its peak memory", ORIGINAL_PEAK / 1e9, memory["peak"] / 1e9, "GB"),
        _line("... over the idle process", None, memory["increase"] / 1e9, "GB"),
    ]


def _recomputed_lines(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Training that computes activations again. Its share of the peak would count that work as useful."""
    lines = []
    for row in content["rows"]:
        if row["run"] == TRAINING:
            lines += [_run_line(row, "RECOMPUTE"), *_memory_lines(row)]
    return lines


def render(content: Mapping[str, Any], recomputed: Mapping[str, Any]) -> str:
    """The table of a report and of one with TRAINING.RECOMPUTE, with the machine and the commands."""
    peak = peak_rate(content)
    lines = []
    for row in content["rows"]:
        lines += [_run_line(row, share=f"{share_of_peak(row, content):.0f} %"), *_memory_lines(row)]
    lines += _recomputed_lines(recomputed)
    for name, timing in content.get("startup", {}).items():
        words = "... and to that step's end" if name == FIRST_STEP_END else name
        lines.append(_line(words, ORIGINAL_START if name == FIRST_STEP else None, timing["median"], "s"))
    for name, timing in content.get("postprocessing", {}).items():
        lines.append(_line(f"post-processing, {name}", None, timing["median"], "s"))
    environment = content["environment"]
    table = tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)
    commands = "\n".join(f"    {measured['command']}" for measured in (content, recomputed))
    return (
        f"{environment['cpu_name']}, {environment['threads']} threads, {peak / 1e9:.0f} GFLOP/s in matrix products, "
        f"torch {environment['torch']}:\n\n{table}\n\n{commands}\n"
    )


def render_growth(content: Mapping[str, Any]) -> str:
    """Table of the exponents of a report with --growth, and its command."""
    series = content["growth"]
    lines = []
    for name in next(iter(series.values()))["exponents"]:
        exponents = {f"with {what}": f"{entry['exponents'][name]:.2f}" for what, entry in series.items()}
        lines.append({f"exponent, batch {content['rows'][0]['batch']}": name, **exponents})
    sizes = "; ".join(
        f"{what} from {entry['rows'][0]['size']} to {entry['rows'][-1]['size']}" for what, entry in series.items()
    )
    table = tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)
    return f"Growth, fitted to {sizes} (1 is linear):\n\n{table}\n\n    {content['command']}\n"


def render_trials(content: Mapping[str, Any]) -> str:
    """What research/try_paper_speed.py measured: a row per variant, beside the first one."""
    variants = content["variants"]
    base = variants["float32"]
    rows = [
        {
            "training step": name,
            "CPU seconds": f"{row['cpu_seconds']:.2f}",
            "of float32": f"{row['cpu_seconds'] / base['cpu_seconds']:.0%}",
            "peak memory": f"{row['peak_memory'] / 1e9:.2f} GB",
        }
        for name, row in variants.items()
        if name != "head"
    ]
    head = variants["head"]
    saved = (head["one_by_one"] - head["as_one_batch"]) / base["cpu_seconds"]
    text = (
        f"The mask head's {head['steps']} steps take {head['one_by_one']:.2f} CPU seconds one by one and "
        f"{head['as_one_batch']:.2f} as one batch: {saved:.1%} of a training step."
    )
    quality = "; ".join(f"{name} {row['SBD']:.3f} / {row['abs_DiC']:.2f}" for name, row in content["quality"].items())
    text += f" SBD / |DiC| of {content['quality_of']}: {quality}."
    return f"{tabulate(rows, headers='keys', tablefmt='github', disable_numparse=True)}\n\n{text}\n"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=REPORT, help="json of tools/benchmark_speed.py")
    parser.add_argument("--recomputed", type=Path, default=RECOMPUTED, help="the same with TRAINING.RECOMPUTE")
    parser.add_argument("--growth", type=Path, default=GROWTH, help="one with --growth")
    arguments = parser.parse_args()
    page = ROOT / "docs" / "speed.md"
    text = render(*map(read_report, (arguments.report, arguments.recomputed)))
    text += f"\n{render_growth(read_report(arguments.growth))}"
    page.write_text(replace_between(page.read_text(), BEGIN, END, f"\n{text}\n"))
    trials = render_trials(json.loads(TRIALS.read_text()))
    page.write_text(replace_between(page.read_text(), TRIALS_BEGIN, TRIALS_END, f"\n{trials}"))


if __name__ == "__main__":
    main()
