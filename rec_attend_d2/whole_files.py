"""Files that are either there as a whole or as they were before, whatever interrupts their writing."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """Gives the path of a new file, which becomes ``path`` when the block ends, and is removed when it fails.

    Folders that are missing are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name, so that a process that is killed again and again leaves one file.
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _defined(value: Any) -> Any:
    """Content in which undefined figures are None, since JSON knows neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _defined(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_defined(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write a json file, in which figures that are NaN or infinite are null."""
    with written_at_once(path) as partial:
        partial.write_text(json.dumps(_defined(content), indent=indent) + "\n", encoding="utf-8")
