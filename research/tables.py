"""What the scripts that write tables into the documentation share: where figures are, means, and markers in a page."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
RESULTS, COMPARISONS, SPEEDS = (ROOT / "docs" / name for name in ("results", "comparison", "speed"))
OTHERS, ONE_COMMAND, PUBLISHED = (RESULTS / name for name in ("others", "one_command", "published"))


def first_results(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Results by evaluator, of several data sets those of the first."""
    return metrics if "counting" in metrics else next(iter(metrics.values()), {})


def mean_and_spread(values: Iterable[float | None], template: str) -> str:
    """Mean of the figures of all seeds, with their standard deviation where there are several; "" if one has none."""
    figures = list(values)
    if any(figure is None for figure in figures):
        return ""
    mean = template.format(statistics.mean(figures))
    return f"{mean} ± {template.format(statistics.stdev(figures))}" if len(figures) > 1 else mean


def markdown(headers: Sequence[str], rows: Iterable[list[str]]) -> str:
    """A table of texts, none of which is read as a number."""
    return tabulate(list(rows), headers=headers, tablefmt="github", disable_numparse=True)


def replace_between(text: str, begin: str, end: str, content: str) -> str:
    """``text`` with ``content`` between two markers, instead of what stood there."""
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}{content}{end}{after}"
