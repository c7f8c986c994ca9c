#!/usr/bin/env python
"""Write the tables of docs/reliability.md from what the two scripts that try hard have found.

    python research/update_reliability.py

reads docs/results/reliability/trainings.json (of research/try_reliability.py) and bad_inputs.json (of
research/try_bad_inputs.py), so that no figure is typed in by hand.
"""

import argparse
import json
import re
from collections import Counter
from typing import Any

from tables import RESULTS, ROOT, markdown, replace_between

PAGE = ROOT / "docs" / "reliability.md"
FOUND = RESULTS / "reliability"
BEGIN, END = "<!-- {}: research/update_reliability.py -->\n", "<!-- end of {} -->\n"
LONGEST = 160


def render_trainings(content: dict[str, Any]) -> str:
    """Everything that was tried with trainings: a row per figure."""
    rows = [
        [part, name, f"{value:.2g}" if isinstance(value, float) else f"{value:,}"]
        for part, figures in content.items()
        if isinstance(figures, dict)
        for name, value in figures.items()
        if name != "seconds"
    ]
    return markdown(["part", "what", "figure"], rows)


def render_inputs(content: dict[str, Any]) -> str:
    """How many inputs of each command were said to be wrong or taken rightly, and every input with its message."""
    inputs = content["inputs"]
    counts = Counter((row["command"], row["verdict"]) for row in inputs)
    verdicts = sorted({row["verdict"] for row in inputs})
    commands = sorted({row["command"] for row in inputs})
    summary = [[command, *(counts[command, verdict] for verdict in verdicts)] for command in commands]
    summary.append(["all", *(sum(counts[command, verdict] for command in commands) for verdict in verdicts)])
    rows = [[_short(row["input"]), row["verdict"], _short(row["message"])] for row in inputs]
    tables = [markdown(["command", *verdicts], summary), markdown(["input", "verdict", "what it says"], rows)]
    return "\n\n".join(tables)


def _short(message: str) -> str:
    """One line of a table."""
    line = re.sub(r"\s+", " ", message).replace("|", "\\|").replace("<", "&lt;").replace("](", "] (")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def render() -> dict[str, str]:
    """The tables by the name of their place in the page."""
    parts = {"trainings": render_trainings, "inputs": render_inputs}
    files = {"trainings": "trainings.json", "inputs": "bad_inputs.json"}
    return {name: show(json.loads((FOUND / files[name]).read_text())) for name, show in parts.items()}


def main() -> None:
    """Write the tables anew."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    text = PAGE.read_text(encoding="utf-8")
    for name, table in render().items():
        text = replace_between(text, BEGIN.format(name), END.format(name), f"\n{table}\n\n")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
