"""COCO's results file: one json list of all predicted masks, as the test server takes it.

An entry is one mask: ``image_id``, ``category_id``, ``segmentation`` (compressed RLE of the original size) and
``score``. An image without predictions has no entry.

Shapes: `P` predictions of an image; `H, W` original image size in pixels.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

from ..data.segmentation import rle_runs
from ..whole_files import written_at_once
from .coco_evaluator import MAX_DETECTIONS, CocoTruth, Detection, average_precision, load_truth
from .submission import PathLike, Predictions, matched, raise_problems

SUFFIX = ".json"
_KEYS = ("image_id", "category_id", "segmentation", "score")
_MOST_PROBLEMS = 20


def pack(path: PathLike, dataset_name: str, predictions: Predictions) -> None:
    """Write a results file. One that is there is replaced once the new one is complete.

    Args:
        path: json file to write; its folder is made where there is none.
        dataset_name: a registered data set.
        predictions: with ``pred_boxes`` and ``pred_classes``.

    Raises:
        ValueError: the predictions do not fit the images, or a class is unknown.
    """
    truth = load_truth(dataset_name)
    entries: list[Detection] = []
    for record, instances in matched(dataset_name, predictions):
        detections = truth.detections(record["image_id"], instances)
        entries += [{key: detection[key] for key in _KEYS} for detection in detections]
    with written_at_once(Path(path)) as partial:
        partial.write_text(json.dumps(entries))


def check(path: PathLike, dataset_name: str) -> list[str]:
    """What is wrong with a results file for a data set, a sentence for each of the first problems."""
    return _read(path, load_truth(dataset_name))[1]


def score(path: PathLike, dataset_name: str, max_detections: int = MAX_DETECTIONS) -> dict[str, float]:
    """Mask AP of a results file by pycocotools, equal to the evaluator's ``segm`` results.

    Args:
        path: of the json file.
        dataset_name: a registered data set with annotations.
        max_detections: see :func:`.coco_evaluator.average_precision`.

    Raises:
        ValueError: the file is not valid, or the data set has no annotations.
    """
    truth = load_truth(dataset_name)
    if not truth.has_annotations:
        raise ValueError(f"Data set '{dataset_name}' has no annotations: only its test server can score {path}.")
    detections, problems = _read(path, truth)
    raise_problems(path, problems)
    return average_precision(truth, detections, "segm", max_detections)


def _read(path: PathLike, truth: CocoTruth) -> tuple[list[Detection], list[str]]:
    """Entries of a results file, and what is wrong with them."""
    if not Path(path).is_file():
        return [], [f"{os.fspath(path)} does not exist."]
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except ValueError as error:
        return [], [f"It is not valid JSON ({error})."]
    if not isinstance(entries, list):
        return [], [f"It holds a {type(entries).__name__}, but has to hold a list of results."]
    problems: list[str] = []
    for index, entry in enumerate(entries):
        problems += [f"Entry {index} {problem}" for problem in _problems_of(entry, truth)]
        if len(problems) >= _MOST_PROBLEMS:
            return entries, [*problems[:_MOST_PROBLEMS], "There may be more."]
    return entries, problems


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _problems_of(entry: Any, truth: CocoTruth) -> list[str]:
    missing = [key for key in _KEYS if not isinstance(entry, dict) or key not in entry]
    if missing:
        return [f"has no {', '.join(map(repr, missing))}."]
    problems = []
    image = truth.coco.imgs.get(entry["image_id"]) if _is_id(entry["image_id"]) else None
    if image is None:
        problems.append(f"has image_id {entry['image_id']!r}, which is no image of the data set.")
    if not _is_id(entry["category_id"]) or entry["category_id"] not in truth.coco.cats:
        known = ", ".join(f"{id_} {category['name']}" for id_, category in sorted(truth.coco.cats.items()))
        problems.append(f"has category_id {entry['category_id']!r}; the data set's are {known}.")
    value = entry["score"]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not (math.isfinite(value) and 0 <= value <= 1):
        problems.append(f"has score {value!r}, which is no number from 0 to 1.")
    return problems + _segmentation_problems(entry["segmentation"], image)


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _segmentation_problems(segmentation: Any, image: dict | None) -> list[str]:
    """What is wrong with the mask of an entry for ``image``, if that is known."""
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), str):
        return ["has no compressed RLE: 'segmentation' needs 'size' and 'counts', a text."]
    try:
        rle_runs(segmentation, "Its segmentation")
    except ValueError as error:
        return [f"has a wrong mask: {error}"]
    if image is not None and list(segmentation["size"]) != [image["height"], image["width"]]:
        return [
            f"has a mask of size {segmentation['size']}, but '{image['file_name']}' is "
            f"{[image['height'], image['width']]} (height, width)."
        ]
    return []
