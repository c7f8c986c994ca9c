"""Registering under a name of one's choice, and looking a name of the config up."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fvcore.common.registry import Registry

_Registered = TypeVar("_Registered")


def register_as(registry: Registry, name: str) -> Callable[[_Registered], _Registered]:
    """Decorator that registers a class or function under ``name`` instead of its own name."""

    def decorate(item: _Registered) -> _Registered:
        registry._do_register(name, item)
        return item

    return decorate


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
