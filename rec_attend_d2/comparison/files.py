"""Json files that are either there as a whole or not at all, so that an interrupted comparison can go on."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.label_images import written_at_once


class ComparisonError(Exception):
    """A comparison is wrong, or one of its models could not be trained or evaluated; the message says what to do."""


def _plain(value: Any) -> Any:
    """Content in which undefined figures are None, since JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write a json file; its folder is made where there is none. An interruption leaves the old file, or none."""
    with written_at_once(path) as temporary:
        temporary.write_text(json.dumps(_plain(content), indent=indent) + "\n")


def read_json(path: Path) -> Any:
    """Content of a json file, None where there is none.

    Raises:
        ComparisonError: it is no json.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ComparisonError(f"{path} can't be read as json ({error}). Remove it.") from error
