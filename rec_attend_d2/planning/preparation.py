"""From annotated pictures to a plan: read, look, divide, choose; leaves the two data sets and what was found."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.datasets.annotated import Annotated, write_part
from ..data.datasets.coco_files import load_coco
from ..data.datasets.label_sources import some_names
from ..data.picture_check import check_pictures, equal_files
from ..whole_files import write_json
from .groups import beside_validation, choose_validation
from .plan import Plan, choose_settings
from .survey import Progress, Survey, doubts, findings, survey

_TRAIN, _VAL, _FINDINGS = "train.json", "val.json", "findings.json"


@dataclass(frozen=True)
class Prepared:
    """What is to be trained.

    Attributes:
        plan: with settings and validation pictures.
        found: what the data are, rows of a table.
        doubts: what looks wrong with them.
        validation_sizes: (H, W) of the validation pictures, pixels.
    """

    plan: Plan
    found: list[tuple[str, str]]
    doubts: list[str]
    validation_sizes: list[tuple[int, int]]


def prepare(wished: Plan, folder: Path, progress: Progress = lambda items: items) -> Prepared:
    """Read and look at the pictures, keep some for validation, choose the settings that ``wished`` leaves open.

    Args:
        wished: the data and the minutes; of a plan that was edited also settings and validation pictures.
        folder: gets train.json, val.json and findings.json.
        progress: goes over the pictures.

    Raises:
        FileNotFoundError, ValueError: something is missing or wrong with the data; the message names it.
    """
    json_file = wished.data.coco or folder / "all.json"
    content = wished.data.read(json_file)
    records = load_coco(str(json_file), str(wished.data.images))
    names = [category["name"] for category in sorted(content["categories"], key=lambda category: category["id"])]
    used = sorted({item["category_id"] for record in records for item in record["annotations"]})
    data_sets = {str(json_file): records}
    if isinstance(wished.validation, Annotated):
        _write_validation(wished.validation, names, folder)
        data_sets[str(wished.validation.coco or wished.validation.images)] = load_coco(
            str(folder / _VAL), str(wished.validation.images)
        )
    facts = check_pictures(data_sets, True, progress)
    found = survey(records, names, progress)
    plan = _divide(wished, found, content, json_file, folder)
    settings = choose_settings(found) | wished.settings
    rows, lines = findings(found), doubts(found) + _left_out(wished.data)
    both = equal_files(facts, *data_sets.values()) if len(data_sets) == 2 else []
    if both:
        lines.append(f"{len(both)} validation pictures are also among those for training (first: {both[0][0]})")
    if len(used) < len(names):
        empty = ", ".join(name for number, name in enumerate(names) if number not in used)
        lines.append(f"no object is of the categories {empty}")
    write_json(folder / _FINDINGS, {"findings": rows, "doubts": lines})
    return Prepared(replace(plan, settings=settings, class_names=names), rows, lines, _validation_sizes(plan, folder))


def _divide(wished: Plan, found: Survey, content: dict, json_file: Path, folder: Path) -> Plan:
    """Write train.json, and val.json unless validation has pictures of its own; gives the plan with its validation."""
    # As load_coco puts them together.
    listed = {os.path.join(str(wished.data.images), name): name for name in _file_names(content)}
    plan = wished
    if not plan.validation:
        split = choose_validation(found.pictures)
        plan = replace(plan, validation=[listed[name] for name in split.validation], why_validation=split.why)
    kept, validation = set(listed.values()), plan.validation
    if not isinstance(validation, Annotated):
        looked_at = [listed[picture.file_name] for picture in found.pictures]
        beside = beside_validation(validation, looked_at, list(listed.values()))
        kept -= {*validation, *beside}
        if beside:
            why = f"{plan.why_validation}; {len(beside)} beside them are for neither side"
            plan = replace(plan, why_validation=why)
        _check_known(validation, content, json_file)
        write_part(content, set(validation), folder / _VAL)
    write_part(content, kept, folder / _TRAIN)
    return plan


def _file_names(content: dict) -> list[str]:
    return [image["file_name"] for image in content["images"]]


def _left_out(pictures: Annotated) -> list[str]:
    unused = pictures.unused()
    return [f"not used of the folders: {some_names(unused)}"] if unused else []


def _check_known(names: Sequence[str], content: dict, json_file: Path) -> None:
    known = set(_file_names(content))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{unknown[0]} is to be for validation, but is no image of {json_file}. Correct the plan.")
    if len(set(names)) == len(known):
        raise ValueError("All pictures are for validation, so that none is left to train on. Correct the plan.")


def _write_validation(pictures: Annotated, names: Sequence[str], folder: Path) -> None:
    """Write val.json of pictures of their own. Raises a ValueError unless they have the same categories."""
    content = pictures.read(folder / "val_all.json")
    theirs = [category["name"] for category in sorted(content["categories"], key=lambda category: category["id"])]
    if theirs != list(names):
        raise ValueError(
            f"The validation pictures have the categories {', '.join(theirs)}, those for training {', '.join(names)}. "
            "Give both the same, in the order of their ids."
        )
    write_part(content, set(_file_names(content)), folder / _VAL)


def _val_images(plan: Plan) -> Path:
    return plan.validation.images if isinstance(plan.validation, Annotated) else plan.data.images


def read_prepared(plan: Plan, folder: Path) -> Prepared:
    """What :func:`prepare` left, of a training that goes on."""
    content = json.loads((folder / _FINDINGS).read_text(encoding="utf-8"))
    rows = [(what, value) for what, value in content["findings"]]
    return Prepared(plan, rows, content["doubts"], _validation_sizes(plan, folder))


def _validation_sizes(plan: Plan, folder: Path) -> list[tuple[int, int]]:
    return [(record["height"], record["width"]) for record in load_coco(str(folder / _VAL), str(_val_images(plan)))]


def coco_entries(plan: Plan, folder: Path, stem: str) -> list[list[str]]:
    """Entries of DATASETS.COCO_FILES of the two data sets, for training and for validation.

    They are named after the model (``stem``), but as no data set of this project is.
    """
    return [
        [f"{stem}_for_training", str(folder / _TRAIN), str(plan.data.images)],
        [f"{stem}_for_validation", str(folder / _VAL), str(_val_images(plan))],
    ]
