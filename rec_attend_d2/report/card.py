"""The card that lies beside a model's weights: what it was trained on, what it reached, what it is for."""

from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from ..version import __version__
from ..whole_files import written_at_once
from .measure import Measured

_CARD = """# {title}

A model that finds, outlines and counts objects, trained by rec_attend_d2 {version} (`rec-attend train`). Every setting
and its reason: `plan.yaml`. What it does well and what it misses, in pictures: `report.html`.

## Data

{data}

## Results

On pictures that it was not trained on ({validation}):

{results}

## Intended use

Objects like those of the training pictures, in pictures like those. For anything else, measure first how well it does
on pictures of your own (`rec-attend evaluate`). Not made for diagnoses or other decisions about people.
"""


def write_card(
    path: Path, title: str, findings: Sequence[tuple[str, str]], measured: Measured, validation: str
) -> None:
    """Write the card in Markdown.

    Args:
        path: of the file.
        title: of the model.
        findings: what the data are, rows of (what, value).
        measured: what it reached.
        validation: how the pictures were chosen that it was measured on, in words.
    """
    summary = measured.summary
    results = [
        ("pictures", f"{summary['pictures']:g}"),
        ("objects", f"{summary['true_count']:g}"),
        ("count error (mean of pictures)", f"{summary['abs_DiC']:.2f}"),
        ("count error, of all objects", f"{summary['relative_count_error']:.1%}"),
        ("outlines: symmetric best Dice", f"{summary['SBD']:.3f}"),
        ("F1 at IoU 0.5", f"{summary['F1']:.3f}"),
        ("mask AP", f"{summary['AP']:.1f}"),
        ("score threshold", f"{measured.threshold:g}"),
    ]
    text = _CARD.format(
        title=title,
        version=__version__,
        data=tabulate(findings, headers=["", ""], tablefmt="github"),
        results=tabulate(results, headers=["", ""], tablefmt="github", disable_numparse=True),
        validation=validation,
    )
    with written_at_once(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
