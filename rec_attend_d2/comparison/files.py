"""Files of a comparison."""

import json
from pathlib import Path
from typing import Any


class ComparisonError(Exception):
    """A comparison is wrong, or one of its models could not be trained or evaluated; the message says what to do."""


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
