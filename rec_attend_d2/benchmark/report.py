"""The report of a benchmark: its json, its tables, and the comparison with an older one."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

SCHEMA = 1
# What a report has to have in common with one that it is compared with.
COMPARABLE = ("device", "device_name", "threads")
# Keys of every report; further ones are there where they were asked for.
KEYS = {"schema", "command", "config_file", "config", "environment", "settings", "peak", "rows"}
OPTIONAL_KEYS = {"startup", "growth", "postprocessing"}

MEGABYTE = 1e6


class ReportError(Exception):
    """A report can't be read, or not be compared."""


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_environment(device: str, threads: int) -> dict[str, Any]:
    """The machine and the versions, without paths and dates."""
    on_cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.device(device).type,
        "device_name": torch.cuda.get_device_name() if on_cuda else cpu_name(),
        "cpu_name": cpu_name(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def read_report(path: Path) -> dict[str, Any]:
    """A report of tools/benchmark_speed.py.

    Raises:
        ReportError: there is none, or the file is another one.
    """
    try:
        report = json.loads(path.read_text())
    except FileNotFoundError:
        raise ReportError(f"--compare names '{path}', which does not exist.") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"--compare names '{path}', which can't be read as json: {error}") from error
    if not isinstance(report, dict) or not report.keys() >= KEYS or report["schema"] != SCHEMA:
        raise ReportError(
            f"--compare names '{path}', which is no report of tools/benchmark_speed.py in its present form (schema "
            f"{SCHEMA}). Measure the older version again with this one's tool."
        )
    return report


def different_environment(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, what keeps two environments' figures from being compared; empty if nothing does."""
    return [f"{key} ({old.get(key)} then, {new[key]} now)" for key in COMPARABLE if old.get(key) != new[key]]


def seconds_text(timing: Mapping[str, float]) -> str:
    """Median and quartiles in milliseconds."""
    median, q1, q3 = (1000 * timing[key] for key in ("median", "q1", "q3"))
    return f"{median:.1f} ({q1:.1f} to {q3:.1f})"


def peak_rate(report: Mapping[str, Any]) -> float:
    """The machine's best measured rate of operations per second."""
    return max(report["peak"].values())


def totals_table(report: Mapping[str, Any]) -> str:
    """A line per run: time, rate, share of the peak, memory."""
    lines = []
    for row in report["rows"]:
        rate = row["flops"] / row["seconds"]["median"]
        memory = row.get("memory")
        lines.append(
            {
                "run": row["run"],
                "batch": row["batch"],
                "steps": row.get("steps"),
                "instances": row.get("instances"),
                "ms (quartiles)": seconds_text(row["seconds"]),
                "images/s": f"{row['images_per_second']:.2f}",
                "GFLOP": f"{row['flops'] / 1e9:.2f}",
                "GFLOP/s": f"{rate / 1e9:.1f}",
                "of peak": f"{100 * rate / peak_rate(report):.1f} %",
                "peak MB": f"{memory['peak'] / MEGABYTE:.0f}" if memory else None,
                "over idle MB": f"{memory['increase'] / MEGABYTE:.0f}" if memory else None,
            }
        )
    return tabulate(lines, headers="keys", disable_numparse=True)


def phases_table(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Own time of every phase in milliseconds and as share of its run; a column per run."""
    names = list(dict.fromkeys(name for row in rows for name in row["phases"]))
    lines = []
    for name in names:
        cells = []
        for phases in (row["phases"] for row in rows):
            share = 100 * phases.get(name, 0.0) / sum(phases.values())
            cells.append(f"{1000 * phases[name]:.1f} ({share:.0f} %)" if name in phases else "")
        lines.append([name, *cells])
    headers = [title, *(row["run"].replace(", ", "\n") for row in rows)]
    return tabulate(lines, headers=headers, disable_numparse=True)


def phases_tables(report: Mapping[str, Any]) -> str:
    """A table of phases per batch size."""
    by_batch: dict[int, list] = {}
    for row in report["rows"]:
        by_batch.setdefault(row["batch"], []).append(row)
    return "\n\n".join(phases_table(rows, f"ms, batch {batch}") for batch, rows in by_batch.items())


def growth_tables(growth: Mapping[str, Any]) -> str:
    """A table per series, its last line with the fitted exponents."""
    tables = []
    for what, series in growth.items():
        names = list(series["exponents"])
        units = {name: ("MB", 1 / MEGABYTE) if "memory" in name else ("ms", 1000.0) for name in names}
        lines = [[str(row["size"]), *(f"{units[name][1] * row[name]:.1f}" for name in names)] for row in series["rows"]]
        lines.append(["exponent", *(f"{series['exponents'][name]:.2f}" for name in names)])
        headers = [what, *(f"{name}, {units[name][0]}" for name in names)]
        tables.append(tabulate(lines, headers=headers, disable_numparse=True))
    return "\n\n".join(tables)


def timings_table(timings: Mapping[str, Mapping[str, float]], title: str) -> str:
    """A line per timing, in milliseconds."""
    lines = [[name, seconds_text(timing)] for name, timing in timings.items()]
    return tabulate(lines, headers=[title, "ms (quartiles)"], disable_numparse=True)


def tables(report: Mapping[str, Any]) -> str:
    """All tables of a report."""
    environment, settings = report["environment"], report["settings"]
    peaks = ", ".join(f"{rate / 1e9:.1f} at {side}" for side, rate in report["peak"].items())
    parts = [
        f"{report['config_file']} on {environment['device_name']} ({environment['device']}, {environment['threads']} "
        f"threads), torch {environment['torch']}; median of {settings['repeats']} runs after {settings['warmup']}\n"
        f"float32 matrix products reach {peak_rate(report) / 1e9:.1f} GFLOP/s ({peaks})",
        totals_table(report),
        phases_tables(report),
    ]
    for key, title in (("startup", "start"), ("postprocessing", "post-processing alone")):
        if key in report:
            parts.append(timings_table(report[key], title))
    if "growth" in report:
        parts.append(growth_tables(report["growth"]))
    return "\n\n".join(parts)


def figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Everything that is better when it is smaller, by a name that says what it is; milliseconds, MB and GFLOP."""
    values: dict[str, float] = {}
    for row in report["rows"]:
        name = f"{row['run']}, batch {row['batch']}"
        values[f"{name}, ms"] = 1000 * row["seconds"]["median"]
        if "memory" in row:
            values[f"{name}, peak MB"] = row["memory"]["peak"] / MEGABYTE
            values[f"{name}, over idle MB"] = row["memory"]["increase"] / MEGABYTE
        values[f"{name}, GFLOP"] = row["flops"] / 1e9
        values |= {f"{name}: {phase}, ms": 1000 * seconds for phase, seconds in row["phases"].items()}
    for key in ("startup", "postprocessing"):
        values |= {f"{what}, ms": 1000 * timing["median"] for what, timing in report.get(key, {}).items()}
    return values


def comparison_table(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A line per figure: old, new, and new divided by old; a figure that only one report has stands alone."""
    before, after = figures(old), figures(new)
    lines = []
    for name in [*after, *(name for name in before if name not in after)]:
        ratio = f"{after[name] / before[name]:.2f}" if name in after and before.get(name) else ""
        cells = [f"{values[name]:.2f}" if name in values else "" for values in (before, after)]
        lines.append([name, *cells, ratio])
    return tabulate(lines, headers=["", "old", "new", "new / old"], disable_numparse=True)
