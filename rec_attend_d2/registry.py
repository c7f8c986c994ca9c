"""Looking a name of the config up."""

from collections.abc import Mapping
from typing import Any

from fvcore.common.registry import Registry


def look_up(choices: Registry | Mapping[str, Any], name: str, key: str) -> Any:
    """What is called ``name``.

    Args:
        choices: a registry, or what there is by name.
        name: value of the configuration key.
        key: the configuration key, for the error.

    Raises:
        ValueError: nothing has that name; the message lists what there is.
    """
    known: dict[str, Any] = dict(choices)
    if name not in known:
        raise ValueError(f"{key} is '{name}', which is not known. Choose one of: {', '.join(sorted(known))}.")
    return known[name]
