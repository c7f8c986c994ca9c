"""Registering under a name of one's choice, and looking up a name of the config."""

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


def look_up(registry: Registry | Mapping[str, Any], name: str, key: str) -> Any:
    """The object registered as ``name``.

    Args:
        registry: any registry, or a dict.
        name: value of the configuration key.
        key: the configuration key, for the error.

    Raises:
        ValueError: nothing is registered under that name; the message lists what is.
    """
    if name not in registry:
        names = registry if isinstance(registry, Mapping) else [entry for entry, _ in registry]
        raise ValueError(f"{key} is '{name}', which is not known. Choose one of: {', '.join(sorted(names))}.")
    return registry.get(name)
