"""Tables of :func:`.analysis.analyze`'s report."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from .analysis import ANALYSES, OWN, WHOLE

_MILLION = 1e6
_UNITS = {"flops": "MFLOP", "activations": "M activations"}


def _indented(name: str) -> str:
    """A part's last name, farther to the right the deeper it lies."""
    level = 0 if name == WHOLE else 1 + name.count(".")
    return "  " * level + name.rsplit(".", 1)[-1]


def _in_order(names: Mapping[str, Any]) -> list[str]:
    """The whole first, then as in the model, the rest last."""
    return sorted(names, key=lambda name: (name != WHOLE, name == OWN))


def parameters_table(parameters: Mapping[str, Any]) -> str:
    """A line per part."""
    parts = parameters["parts"]
    lines = [[_indented(name), f"{parts[name]:,}"] for name in _in_order(parts)]
    lines.append(["of which trained", f"{parameters['trainable']:,}"])
    return _table(lines, ["part", "parameters"])


def counts_table(parts: Mapping[str, Mapping[str, int]], what: str, steps: int | None) -> str:
    """A line per part; without time steps (None) there is one figure for each."""
    columns = (
        {"first": "first step", "further": "each further step", "total": f"{steps} steps"} if steps else {"total": ""}
    )
    names = _in_order(parts)
    lines = [[_indented(name), *(f"{parts[name][key] / _MILLION:,.3f}" for key in columns)] for name in names]
    return _table(lines, ["part", *(f"{_UNITS[what]}\n{title}".strip() for title in columns.values())])


def _table(lines: list[list[str]], headers: list[str]) -> str:
    alignment = ["left", *["right"] * (len(headers) - 1)]
    # A name's place says how deep it lies.
    return tabulate(lines, headers=headers, disable_numparse=True, colalign=alignment, preserve_whitespace=True)


def uncounted_line(uncounted: Mapping[str, Mapping[str, int]]) -> str:
    """The operators whose operations are not counted, the most frequent first, and how often they run."""
    if not uncounted:
        return "Every operator is counted."
    names = sorted(uncounted, key=lambda name: -uncounted[name]["total"])
    return "Operations not counted: " + ", ".join(f"{name} {uncounted[name]['total']}x" for name in names) + "."


def tables(report: Mapping[str, Any]) -> str:
    """The whole report as text."""
    height, width = report["image_size"]
    steps = f", {report['steps']} time steps" if report["steps"] else ""
    texts = [f"{report['model']}, one image of {height} x {width} pixels{steps}"]
    if "structure" in report:
        texts.append(report["structure"])
    if "parameters" in report:
        texts.append(parameters_table(report["parameters"]))
    for what in ANALYSES:
        if what in report:
            texts.append(counts_table(report[what]["parts"], what, report["steps"]))
    if "flops" in report:
        texts.append(uncounted_line(report["flops"]["uncounted"]))
    return "\n\n".join(texts)
