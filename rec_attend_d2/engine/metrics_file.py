"""metrics.json, in which a resumed training goes on as if it had never been interrupted."""

import json
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage

from ..whole_files import explained_full_disk, written_at_once

# Iterations that a value is the median of, where it is a noisy one.
_WINDOW = 20


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.json, without what an interruption cut off; none where there is no file."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            rows.append(row)
    return rows


class MetricsWriter(EventWriter):
    """Writes what Detectron2's JSONWriter does: a row per iteration, json, with all that was logged in it.

    Before its first row, rows of iterations that are trained again are removed from the file, as is a row that was cut
    off; what is logged anew of an iteration before joins that iteration's row.
    """

    def __init__(self, path: Path, first: Callable[[], int]):
        """
        Args:
            path: the file; made where there is none.
            first: gives the iteration that this training begins with, once it has begun.
        """
        self._path = path
        self._first = first
        self._begun = False
        self._last_written = -1

    def write(self) -> None:
        """Append what was logged since the last call."""
        rows: dict[int, dict[str, Any]] = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(_WINDOW).items():
            if iteration > self._last_written:
                rows[iteration][name] = value
        if not self._begun:
            self._keep(rows)
            self._begun = True
        if not rows:
            return
        self._last_written = max(rows)
        with explained_full_disk(self._path):
            self._append(rows)

    def _append(self, rows: dict[int, dict[str, Any]]) -> None:
        lines = [json.dumps({**row, "iteration": iteration}, sort_keys=True) for iteration, row in sorted(rows.items())]
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def _keep(self, rows: dict[int, dict[str, Any]]) -> None:
        """Leave in the file the rows of the iterations before this training, except those that ``rows`` go on."""
        old = [row for row in read_rows(self._path) if row["iteration"] < self._first()]
        for row in old:
            if row["iteration"] in rows:
                rows[row["iteration"]] = {**row, **rows[row["iteration"]]}
        kept = [row for row in old if row["iteration"] not in rows]
        with written_at_once(self._path) as partial:
            partial.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in kept), encoding="utf-8")
