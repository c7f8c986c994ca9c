"""Writes the report about one model: report.html, evaluation.csv and evaluation.json in a folder."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.image_io import to_bgr
from ..evaluation.counting_evaluator import true_masks
from ..evaluation.metrics import drop_empty, to_be_scored
from ..prediction import Predictor
from ..whole_files import write_json, written_at_once
from .content import (
    classes_section,
    counts_section,
    errors_section,
    learning_section,
    method_section,
    rows_section,
    short_names,
    signed,
    summary_section,
)
from .errors import find_errors
from .measure import COLUMNS, Measured, PictureResult, annotated_records, masks_of
from .pictures import draw_comparison, draw_legend
from .plots import picture_png
from .rendering import Picture, Section, render_html
from .selection import ranked

HTML, CSV, JSON = "report.html", "evaluation.csv", "evaluation.json"


def write_report(
    folder: Path,
    title: str,
    measured: Measured,
    predictor: Predictor,
    *,
    plan: Sequence[tuple[str, str, str]] = (),
    findings: Sequence[tuple[str, str]] = (),
    metrics_file: Path | None = None,
) -> Path:
    """Write everything about a finished model; the page needs no network and no other file.

    Args:
        folder: for the files; it is made if it is missing.
        title: of the page.
        measured: what :func:`.measure.measure` gave.
        predictor: that was measured; it runs again on the few pictures that are shown.
        plan: settings of the training, each (setting, value, reason).
        findings: what was found in the data, each (what, value).
        metrics_file: metrics.json of the training.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: the metrics file, or a picture, is missing.
        ValueError: the metrics file holds no iterations.
    """
    sections = [
        summary_section(measured),
        _gallery(measured, predictor),
        counts_section(measured),
        errors_section(measured),
        *classes_section(measured),
        *learning_section(metrics_file),
        *rows_section("Settings and why", "Settings of the training", ["setting", "value", "reason"], plan),
        *rows_section("What was found in the data", "The annotated pictures", ["what", "value"], findings),
        method_section(measured, predictor.cfg.INPUT.OBJECT_SIZE),
    ]
    write_json(folder / JSON, measured.as_json())
    write_table(folder / CSV, measured.pictures)
    with written_at_once(folder / HTML) as partial:
        partial.write_text(render_html(title, sections), encoding="utf-8", errors="backslashreplace")
    return folder / HTML


def write_table(path: Path, pictures: Sequence[PictureResult]) -> None:
    """Write the figures of every picture as CSV."""
    with written_at_once(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(picture, column) for column in COLUMNS] for picture in pictures)


def _gallery(measured: Measured, predictor: Predictor) -> Section:
    """The best, the median and the worst pictures, each beside the truth; empty ones only where all are."""
    records = {record["file_name"]: record for record in annotated_records(measured.dataset)}
    names = dict(zip(records, short_names(list(records)), strict=True))
    filled = [picture for picture in measured.pictures if picture.true_count or picture.predicted_count]
    shown = filled or measured.pictures
    drawn = []
    for rank, positions in ranked([picture.sbd for picture in shown]).items():
        for number, position in enumerate(positions, start=1):
            picture = shown[position]
            words = _caption(rank, names[picture.file_name], picture)
            drawn.append(Picture(f"{rank}_{number}", words, picture_png(_draw(records[picture.file_name], predictor))))
    legend = Picture("legend", "Marks: " + _LEGEND, picture_png(draw_legend()))
    text = (
        "The best, middling and worst pictures by SBD: on the left what people outlined, on the right what was found."
    )
    return Section("Found beside outlined", [text], pictures=[legend, *drawn])


_LEGEND = (
    "a thin line is right, − a missed object (dashed), M several taken for one (whole and thick), S one taken for "
    "several (long dashes), + an invented object (dotted), ≠ an object whose outline differs too much to count as "
    "found (dashed)."
)


def _caption(rank: str, name: str, picture: PictureResult) -> str:
    return (
        f"{rank.capitalize()}: {name}. Outlined {picture.true_count}, counted {picture.predicted_count} "
        f"({signed(picture.difference)}), SBD {picture.sbd:.3f}; missed {picture.missed}, merged {picture.merged}, "
        f"split {picture.split}, invented {picture.invented}."
    )


def _draw(record: dict, predictor: Predictor) -> np.ndarray:
    """The picture of a record with what people outlined and what is found, RGB [H, W, 3]."""
    image = predictor.read(record["file_name"])
    found = masks_of(predictor.predict([image])[0].instances, record).pred_masks
    true = true_masks(record, iscrowd=0)
    predicted = found[to_be_scored(found, true, true_masks(record, iscrowd=1))]
    true = drop_empty(true)
    return draw_comparison(_rgb(image, predictor), true, predicted, find_errors(predicted, true))


def _rgb(image: np.ndarray, predictor: Predictor) -> np.ndarray:
    """Pixels as :meth:`Predictor.read` gave them (mapped ones of a large file are of any depth), RGB [H, W, 3]."""
    if isinstance(image, np.memmap):
        image = to_bgr(np.asarray(image), predictor.cfg.INPUT.CONTRAST_PERCENTILES, "The picture")
    return image[:, :, ::-1]
