"""Trading time for memory: activations that are computed again in the backward pass instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

from torch.utils.checkpoint import checkpoint

_Result = TypeVar("_Result")

_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


def is_recomputing() -> bool:
    """Whether a part runs for the second time, so that it must leave running statistics alone."""
    return _recomputing.get()


@contextmanager
def _second_time() -> Iterator[None]:
    token = _recomputing.set(True)
    try:
        yield
    finally:
        _recomputing.reset(token)


def _contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _second_time()


def recomputed(part: Callable[..., _Result], *arguments: Any) -> _Result:
    """``part(*arguments)``, of which only the arguments are kept until the backward pass.

    Args:
        part: a module or function without side effects but those that :func:`is_recomputing` guards. Random numbers
            it draws are the same the second time.
        arguments: any; gradients flow to the tensors in them.
    """
    return checkpoint(part, *arguments, use_reentrant=False, context_fn=_contexts)
