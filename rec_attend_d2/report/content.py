"""What the report about one model says: sections of text, tables and plots, made of what was measured alone."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .charts import count_scatter, training_curves
from .errors import RELATED_IOU
from .measure import ADDED_UP, Measured, PictureResult
from .rendering import Fact, Picture, Section, Table
from .selection import group_label, split_evenly

UNKNOWN = "–"
# Largest number of pictures in the table of the worst.
WORST = 10

Rows = Sequence[Sequence[str]]


def share(part: float, whole: float) -> str:
    """``part`` of ``whole`` in percent; a dash of nothing."""
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else UNKNOWN


def plural(count: float, noun: str) -> str:
    """``count`` and the noun."""
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def signed(difference: int) -> str:
    """A difference with its sign; 0 has none."""
    return f"{difference:+d}" if difference else "0"


def short_names(file_names: Sequence[str]) -> list[str]:
    """File names without the folder that all of them lie in."""
    folders = {os.path.dirname(name) for name in file_names}
    if len(folders) == 1:
        return [os.path.basename(name) for name in file_names]
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # on several drives, or some are absolute
        return list(file_names)
    return [Path(os.path.relpath(name, common or ".")).as_posix() for name in file_names]


def summary_section(measured: Measured) -> Section:
    """What matters, in plain words."""
    summary = measured.summary
    pictures, true, predicted = (int(summary[name]) for name in ("pictures", "true_count", "predicted_count"))
    difference = predicted - true
    balance = (
        f"{plural(abs(difference), 'object')} too {'many' if difference > 0 else 'few'}" if difference else "the same"
    )
    facts = [
        Fact(
            f"{summary['abs_DiC']:.2f} objects per picture ({share(_wrong(measured), true)})",
            "Count error",
            "The count of a picture is off by so many on average, too high or too low; in brackets, all these "
            "differences as a share of all objects. "
            f"In sum the model counts {plural(predicted, 'object')} where people outlined {true}: {balance}.",
        ),
        Fact(
            f"{int(summary['exact'])} of {pictures} ({share(summary['exact'], pictures)})",
            "Pictures counted exactly",
            "The model counts just as many objects as people outlined. The more there are, the harder that is.",
        ),
        Fact(
            f"{share(summary['found'], true)} found, {share(summary['found'], predicted)} right",
            "Objects",
            f"{int(summary['found'])} of the {true} outlined objects were found, and so many of the {predicted} marked "
            "ones are right. To be found, the two outlines must overlap by at least half (IoU 0.5).",
        ),
        Fact(
            f"{summary['SBD']:.3f}",
            "Quality of the outlines (SBD)",
            "1 where the outlines are those that people drew, 0 where nothing fits. Missed, merged and invented "
            "objects lower it too. (Symmetric best Dice, mean of the pictures.)",
        ),
    ]
    text = f"Measured on {plural(pictures, 'picture')} that people annotated, with {plural(true, 'outlined object')}."
    return Section("What matters", [text], facts=facts)


def _wrong(measured: Measured) -> int:
    return sum(abs(picture.difference) for picture in measured.pictures)


def counts_section(measured: Measured) -> Section:
    """True against predicted counts, and where they differ most."""
    pictures = measured.pictures
    names = short_names([picture.file_name for picture in pictures])
    order = sorted(range(len(pictures)), key=lambda number: -abs(pictures[number].difference))
    wrong = [number for number in order if pictures[number].difference][:WORST]
    plot = count_scatter(
        [picture.true_count for picture in pictures], [picture.predicted_count for picture in pictures]
    )
    alt = (
        f"Counted against outlined objects of {plural(len(pictures), 'picture')}; on the line both are equal. They "
        f"differ by at most {max(abs(picture.difference) for picture in pictures)}."
    )
    if not wrong:
        return Section("Counts", ["Every picture is counted exactly."], pictures=[Picture("counts", alt, plot)])
    headers = ["picture", "outlined", "counted", "difference", "missed", "merged", "split", "invented"]
    rows = [[names[number], *map(str, _counts_of(pictures[number]))] for number in wrong]
    table = Table("Pictures with the largest count errors", headers, rows)
    return Section(
        "Counts", ["evaluation.csv has these figures of every picture."], [table], [Picture("counts", alt, plot)]
    )


def _counts_of(picture: PictureResult) -> list[int | str]:
    return [
        *(picture.true_count, picture.predicted_count, signed(picture.difference)),
        *(picture.missed, picture.merged, picture.split, picture.invented),
    ]


def errors_section(measured: Measured) -> Section:
    """What became of the objects, and how that depends on their size."""
    figures = {name: int(value) for name, value in measured.summary.items() if name in ADDED_UP}
    true, predicted = figures["true_count"], figures["predicted_count"]
    lost = figures["missed"] - figures["lost_in_merged"] - figures["lost_in_pieces"] - figures["overlooked"]
    outlined = [
        ["found", figures["found"], "paired with one object of the model, overlapping by at least half (IoU 0.5)"],
        ["missed", figures["missed"], "all others, which are:"],
        [
            "… merged with others",
            figures["lost_in_merged"],
            "most of it lies inside one object of the model, with others",
        ],
        ["… split", figures["lost_in_pieces"], "the model found at least two pieces of it"],
        ["… overlooked", figures["overlooked"], "the model has nothing there"],
        ["… outline differs", lost, "the model has something there, but too different"],
    ]
    found = [
        ["right", figures["found"], "paired with one outlined object, overlapping by at least half (IoU 0.5)"],
        [
            "merged",
            figures["merged"],
            "takes at least two outlined objects, most of each, for one; may be right as well",
        ],
        ["invented", figures["invented"], "there is no outlined object"],
    ]
    split = f"{plural(figures['split'], 'outlined object')} ({share(figures['split'], true)}) were split: at least two "
    paragraphs = [
        split
        + "objects of the model lie mostly inside each. An object that is merged or split may be found all the same, "
        "when one outline comes near enough.",
        f"An object is overlooked or invented where no other has an overlap (IoU) of at least {RELATED_IOU:g} with it, "
        "and none lies mostly, by more than half, inside the other.",
    ]
    tables = [
        _counted_table("What became of the outlined objects", "outlined objects", outlined, true),
        _counted_table("What the objects of the model are", "objects of the model", found, predicted),
    ]
    by_size = _size_table(measured)
    return Section("What goes wrong", paragraphs, tables + ([by_size] if by_size else []))


def _counted_table(caption: str, kind: str, rows: list[list], whole: int) -> Table:
    cells = [[name, meaning, str(number), share(number, whole)] for name, number, meaning in rows]
    return Table(caption, [kind, "which means", "number", "share"], cells, words=2)


def _size_table(measured: Measured) -> Table | None:
    """How many objects of each quarter of the sizes were found; None without objects."""
    areas = np.array([area for picture in measured.pictures for area in picture.areas])
    found = np.array([found for picture in measured.pictures for found in picture.found_objects])
    if not len(areas):
        return None
    rows = [
        [
            group_label(areas[group], "{:.0f}"),
            group_label(np.sqrt(areas[group]), "{:.0f}"),
            *(str(len(group)), str(int(found[group].sum())), share(found[group].sum(), len(group))),
        ]
        for group in split_evenly(areas)
    ]
    headers = ["area in pixels", "width in pixels, about", "outlined", "found", "share"]
    return Table("Found by size of the object, in quarters", headers, rows)


def classes_section(measured: Measured) -> list[Section]:
    """The counts of every class, where there are several."""
    if not measured.class_names:
        return []
    true = np.sum([picture.true_by_class for picture in measured.pictures], axis=0)
    predicted = np.sum([picture.predicted_by_class for picture in measured.pictures], axis=0)
    rows = [
        [name, str(outlined), str(found), signed(found - outlined)]
        for name, outlined, found in zip(measured.class_names, true.tolist(), predicted.tolist(), strict=True)
    ]
    table = Table("Counts of each class", ["class", "outlined", "counted", "difference"], rows)
    return [Section("Classes", ["All other figures of this page are of objects of any class."], [table])]


def learning_section(metrics_file: Path | None) -> list[Section]:
    """The curves of the training, where there are some."""
    drawn = None if metrics_file is None else training_curves(metrics_file)
    if drawn is None:
        return []
    plot, titles = drawn
    text = (
        "While training, the model was evaluated again and again on pictures that it does not learn from. Where "
        "outlines and counts no longer get better, longer training is of no use; where the loss of the other pictures "
        "rises while that of the training pictures falls, more annotated pictures help."
    )
    alt = f"Over minutes of training: {', '.join(titles)}"
    return [Section("Learning", [text], pictures=[Picture("learning", alt, plot)])]


def rows_section(title: str, caption: str, headers: list[str], rows: Rows) -> list[Section]:
    """A section with a table of words, if there are ``rows``."""
    if not rows:
        return []
    return [Section(title, tables=[Table(caption, headers, [list(map(str, row)) for row in rows], words=len(headers))])]


def method_section(measured: Measured, object_size: float) -> Section:
    """How it was measured."""
    summary = measured.summary
    paragraphs = [
        f"Data set {measured.dataset}. What scores at least {measured.threshold:g} counts as an object."
        + (f" Objects are taken to be {object_size:g} pixels wide." if object_size else "")
        + f" A picture took {summary['seconds_per_picture']:.2f} seconds (median, without reading the file).",
        f"Other figures: average precision (COCO) AP {_number(summary['AP'])}, AP50 {_number(summary['AP50'])}; F1 "
        f"at IoU 0.5 {summary['F1']:.3f}; mean difference of the counts {summary['DiC']:+.2f}. All: evaluation.json.",
        "Regions that are annotated as crowds are no objects, and what is found inside them does not count.",
    ]
    names = short_names([picture.file_name for picture in measured.pictures])
    noted = [f"{name}: {p.notes}" for name, p in zip(names, measured.pictures, strict=True) if p.notes]
    if noted:
        more = f" (and {len(noted) - WORST} more)" if len(noted) > WORST else ""
        paragraphs.append(f"Notes on pictures: {'; '.join(noted[:WORST])}{more}.")
    return Section("How it was measured", paragraphs)


def _number(value: float) -> str:
    return UNKNOWN if np.isnan(value) else f"{value:.1f}"
