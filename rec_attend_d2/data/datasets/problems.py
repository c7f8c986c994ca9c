"""Says everything that is wrong with many items in one error: all of it counted, the first ten named."""

from collections.abc import Sequence

NAMED = 10


def listed(problems: Sequence[str], what: str) -> str:
    """One problem as it is; of several the first ten, a line each, below a line that counts them.

    Args:
        problems: sentences, at least one.
        what: they are about, such as the name of a file.
    """
    if len(problems) == 1:
        return problems[0]
    more = [f"... and {len(problems) - NAMED} more."] if len(problems) > NAMED else []
    return "\n  ".join([f"{len(problems)} problems with {what}:", *problems[:NAMED], *more])


def raise_problems(problems: Sequence[str], what: str) -> None:
    """Raise a ValueError that lists ``problems``, if there are any; see :func:`listed`."""
    if problems:
        raise ValueError(listed(problems, what))
