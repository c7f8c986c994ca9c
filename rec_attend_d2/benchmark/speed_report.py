"""The report of speed: its json, its tables, and the comparison with an older one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .measuring import MEGABYTE

SCHEMA = 1
# What a report has to have in common with one that it is compared with.
COMPARABLE = ("device", "device_name", "threads")
# Keys of every report; "startup", "growth" and "postprocessing" are there where they were asked for.
KEYS = {"schema", "command", "config_file", "config", "environment", "settings", "peak", "rows"}


def read_report(path: Path) -> dict[str, Any]:
    """A report of tools/benchmark_speed.py.

    Raises:
        ValueError: there is none, or the file is another one.
    """
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' can't be read as json: {error}") from error
    if not isinstance(report, dict) or not report.keys() >= KEYS or report["schema"] != SCHEMA:
        raise ValueError(
            f"'{path}' is no report of tools/benchmark_speed.py in its present form (schema {SCHEMA}). Measure the "
            "older version again with this one's tool."
        )
    return report


def different_environment(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, what keeps two environments' figures from being compared; empty if nothing does."""
    return [f"{key} ({old.get(key)} then, {new[key]} now)" for key in COMPARABLE if old.get(key) != new[key]]


def peak_rate(report: Mapping[str, Any]) -> float:
    """The machine's best measured rate of operations per second."""
    return max(report["peak"].values())


def share_of_peak(row: Mapping[str, Any], report: Mapping[str, Any]) -> float:
    """Share of the machine's peak that a row of a report reaches, in percent."""
    return 100 * row["flops"] / row["seconds"]["median"] / peak_rate(report)


def figures(report: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Every figure by a name that says what it is, and its quartiles or what a reader has to know besides."""
    values: dict[str, tuple[float, str]] = {}

    def add_time(name: str, timing: Mapping[str, float]) -> None:
        values[f"{name}, ms"] = 1000 * timing["median"], f"{1000 * timing['q1']:.1f} to {1000 * timing['q3']:.1f}"

    for row in report["rows"]:
        name = f"{row['run']}, batch {row['batch']}"
        add_time(name, row["seconds"])
        values[f"{name}, GFLOP"] = row["flops"] / 1e9, f"{share_of_peak(row, report):.1f} % of the machine's peak"
        if "objects" in row:  # of pictures, whose objects are not known beforehand
            add_time(f"{name}, with post-processing", row["seconds_with_postprocessing"])
            values[f"{name}, objects"] = row["objects"], "mean"
            values[f"{name}, steps"] = row["steps"], "mean"
        if "memory" in row:
            values[f"{name}, peak MB"] = row["memory"]["peak"] / MEGABYTE, ""
            values[f"{name}, over idle MB"] = row["memory"]["increase"] / MEGABYTE, ""
    for name, timing in report.get("startup", {}).items():
        add_time(name, timing)
    for name, timing in report.get("postprocessing", {}).items():
        add_time(f"post-processing, {name}", timing)
    for what, series in report.get("growth", {}).items():
        sizes = f"{series['rows'][0]['size']} to {series['rows'][-1]['size']}"
        for name, exponent in series["exponents"].items():
            values[f"{name}, exponent with {what}"] = exponent, sizes
    return values


def tables(report: Mapping[str, Any]) -> str:
    """A report in words: what was measured where, and a line per figure."""
    environment, settings = report["environment"], report["settings"]
    peaks = ", ".join(f"{rate / 1e9:.1f} at {side}" for side, rate in report["peak"].items())
    lines = [[name, f"{value:.2f}", words] for name, (value, words) in figures(report).items()]
    return (
        f"{report['config_file']} on {environment['device_name']} ({environment['device']}, {environment['threads']} "
        f"threads), torch {environment['torch']}; median of {settings['repeats']} runs after {settings['warmup']}\n"
        f"float32 matrix products reach {peak_rate(report) / 1e9:.1f} GFLOP/s ({peaks})\n\n"
        + tabulate(lines, headers=["", "", "quartiles"], disable_numparse=True, colalign=["left", "right", "left"])
    )


def comparison_table(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A line per figure: old, new, and new divided by old; a figure that only one report has stands alone."""
    before, after = ({name: value for name, (value, _) in figures(report).items()} for report in (old, new))
    lines = []
    for name in [*after, *(name for name in before if name not in after)]:
        ratio = f"{after[name] / before[name]:.2f}" if name in after and before.get(name) else ""
        cells = [f"{values[name]:.2f}" if name in values else "" for values in (before, after)]
        lines.append([name, *cells, ratio])
    return tabulate(lines, headers=["", "old", "new", "new / old"], disable_numparse=True)
