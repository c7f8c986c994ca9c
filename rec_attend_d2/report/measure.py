"""How well a finished model finds and counts the objects of annotated pictures: figures of each, and of all together.

Shapes: `P` predicted and `N` true objects of a picture; `K` classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from time import perf_counter
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances

from ..config import number_of_classes
from ..evaluation.coco_evaluator import CocoTruth, Detection, as_one_class, average_precision, load_truth
from ..evaluation.counting_evaluator import true_masks
from ..evaluation.metrics import (
    ImageScores,
    drop_empty,
    pooled_figures,
    score_image,
    summarize,
    to_be_scored,
)
from ..evaluation.per_image_evaluator import checked_instances
from ..prediction import Predictor
from ..structures import as_crops
from .errors import find_errors

Progress = Callable[[Sequence[dict]], Iterable[dict]]


@dataclass(frozen=True)
class PictureResult:
    """What was found in one picture. Its errors are defined by :class:`.errors.PictureErrors`.

    Attributes:
        file_name: of the picture.
        true_count, predicted_count: numbers of objects.
        sbd: symmetric best Dice in [0, 1]: how well the outlines agree.
        found: true objects with a partner among the predicted ones, one to one, at an IoU of at least 0.5.
        missed: the other true objects. Of them ``lost_in_merged`` mostly lie inside a merged object, else
            ``lost_in_pieces`` are split, else ``overlooked`` have nothing to do with any predicted object; of the rest
            the outline differs too much.
        merged: predicted objects that take at least two true ones for one.
        split: true objects taken for at least two.
        invented: predicted objects where there is none.
        seconds: that the prediction took, without reading the file.
        notes: of the prediction, such as that it stopped early.
        areas: of the true objects in pixels [N].
        found_objects: which of them are found [N].
        true_by_class, predicted_by_class: numbers of objects [K]; empty where the model and the data set do not tell
            the same number of classes apart, or only one.
    """

    file_name: str
    true_count: int
    predicted_count: int
    sbd: float
    found: int
    missed: int
    lost_in_merged: int
    lost_in_pieces: int
    overlooked: int
    merged: int
    split: int
    invented: int
    seconds: float
    notes: str
    areas: list[int]
    found_objects: list[bool]
    true_by_class: list[int]
    predicted_by_class: list[int]

    @property
    def difference(self) -> int:
        """Predicted minus true count."""
        return self.predicted_count - self.true_count


COLUMNS = tuple(
    field.name
    for field in fields(PictureResult)
    if field.name not in ("areas", "found_objects", "true_by_class", "predicted_by_class")
)
"""Figures of a picture that are one value each, in the order of a table."""
ADDED_UP = tuple(column for column in COLUMNS if column not in ("file_name", "sbd", "seconds", "notes"))


@dataclass(frozen=True)
class Measured:
    """What was found in the pictures of a data set.

    Attributes:
        dataset: its name.
        class_names: of the K classes that were compared; empty where that was not possible, see ``PictureResult``.
        threshold: score from which on something counted as an object.
        pictures: in the data set's order, at least one.
        summary: of all pictures together. The metrics of :func:`~rec_attend_d2.evaluation.metrics.summarize` and
            :func:`~rec_attend_d2.evaluation.metrics.pooled_figures` (``F1`` of ``precision50``, ``recall50``);
            ``AP``, ``AP50`` and ``AP75`` in percent; the sums of the pictures' numbers under the names of
            :class:`PictureResult`; ``pictures``; ``exact``, those that were counted exactly; and
            ``seconds_per_picture``, the median. NaN is what is undefined, as AP without true objects.
    """

    dataset: str
    class_names: list[str]
    threshold: float
    pictures: list[PictureResult]
    summary: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Everything, for :func:`~rec_attend_d2.whole_files.write_json`."""
        return asdict(self)


def measure(predictor: Predictor, dataset_name: str, progress: Progress = iter) -> Measured:
    """Run a model on every picture of a data set, one at a time, and compare what it finds with the annotations.

    Crowd regions are no objects, and predictions that lie mostly inside one are left out, as in
    :class:`~rec_attend_d2.evaluation.CountingEvaluator`, whose numbers these are. No mask of a whole picture is made.

    Args:
        predictor: of a model that finds masks.
        dataset_name: a registered data set with annotations.
        progress: goes over the pictures, such as ``tqdm``.

    Raises:
        ValueError: there is no such data set, it has no pictures or no annotations, or a picture is not of the size
            that its annotations are of.
        FileNotFoundError: a picture is missing.
    """
    records = annotated_records(dataset_name)
    truth, compared = _comparable_truth(predictor, dataset_name)
    pictures: list[PictureResult] = []
    scores: list[ImageScores] = []
    detections: list[Detection] = []
    for record in progress(records):
        image = predictor.read(record["file_name"])
        start = perf_counter()
        (prediction,) = predictor.predict([image])
        seconds = perf_counter() - start
        instances = masks_of(prediction.instances, record)
        classes = len(truth.class_names) if compared else 0
        result, image_scores = score_picture(record, instances, classes, seconds, "; ".join(prediction.notes))
        pictures.append(result)
        scores.append(image_scores)
        if not compared:
            instances.pred_classes = instances.pred_classes * 0
        detections += truth.detections(record["image_id"], instances)
    summary = _summary(pictures, scores, truth, detections)
    names = list(truth.class_names) if compared else []
    return Measured(dataset_name, names, predictor.score_threshold, pictures, summary)


def annotated_records(dataset_name: str) -> list[dict]:
    """The pictures of a registered data set. Raises a ValueError unless there are some, all with annotations."""
    if dataset_name not in DatasetCatalog:
        raise ValueError(
            f"There is no data set '{dataset_name}'. Known are {', '.join(sorted(DatasetCatalog.list()))}."
        )
    records = DatasetCatalog.get(dataset_name)
    lacking = next((record["file_name"] for record in records if "annotations" not in record), None)
    if not records or lacking is not None:
        what = (
            f"Picture {lacking} of data set '{dataset_name}' has no" if records else f"'{dataset_name}' has no pictures"
        )
        raise ValueError(f"{what} annotations to compare with. Name a data set that has them.")
    return records


def masks_of(instances: Instances, record: dict) -> Instances:
    """What was found in the picture of a record, with masks as crops. Raises a ValueError if there are no masks."""
    found = checked_instances(record, {"instances": instances})
    if not found.has("pred_masks"):
        raise ValueError(
            "The model finds boxes, but no masks to be compared. Give one of stage C or of the fast recipe."
        )
    found.pred_masks = as_crops(found.pred_masks)
    return found


def score_picture(
    record: dict, instances: Instances, classes: int = 0, seconds: float = 0.0, notes: str = ""
) -> tuple[PictureResult, ImageScores]:
    """Compare what was found in one picture with its annotations.

    Args:
        record: of the picture, with ``annotations``.
        instances: at its size, with ``pred_masks`` as crops and ``pred_classes``.
        classes: K, or 0 where classes are not compared.
        seconds, notes: of the result.

    Returns:
        What the report tells, and what :class:`~rec_attend_d2.evaluation.CountingEvaluator` would.
    """
    true = true_masks(record, iscrowd=0)
    kept = to_be_scored(instances.pred_masks, true, true_masks(record, iscrowd=1))
    predicted, true = instances.pred_masks[kept], drop_empty(true)
    errors, scores = find_errors(predicted, true), score_image(predicted, true)
    missed = ~errors.found
    in_pieces = missed & ~errors.within_merged & errors.split
    true_classes = [item["category_id"] for item in record["annotations"] if not item.get("iscrowd", 0)]
    result = PictureResult(
        file_name=record["file_name"],
        true_count=scores.gt_count,
        predicted_count=scores.pred_count,
        sbd=scores.sbd,
        found=int(errors.found.sum()),
        missed=int(missed.sum()),
        lost_in_merged=int((missed & errors.within_merged).sum()),
        lost_in_pieces=int(in_pieces.sum()),
        overlooked=int(errors.overlooked.sum()),
        merged=int(errors.merged.sum()),
        split=int(errors.split.sum()),
        invented=int(errors.invented.sum()),
        seconds=seconds,
        notes=notes,
        areas=true.areas().tolist(),
        found_objects=errors.found.tolist(),
        true_by_class=_counts(true_classes, classes),
        predicted_by_class=_counts(instances.pred_classes.numpy()[kept], classes),
    )
    return result, scores


def _counts(numbers: Any, classes: int) -> list[int]:
    """How many of the class ``numbers`` are 0, 1, ..., ``classes`` - 1."""
    return np.bincount(np.asarray(numbers, dtype=np.int64), minlength=classes).tolist() if classes else []


def _comparable_truth(predictor: Predictor, dataset_name: str) -> tuple[CocoTruth, bool]:
    """The truth, and whether its classes are the model's; else all objects are of one class there."""
    truth = load_truth(dataset_name)
    known, told_apart = len(truth.class_names), number_of_classes(predictor.cfg)
    if known == told_apart:
        return truth, known > 1
    return as_one_class(truth), False


def _summary(
    pictures: Sequence[PictureResult], scores: Sequence[ImageScores], truth: CocoTruth, detections: list[Detection]
) -> dict[str, float]:
    sums = {name: sum(getattr(picture, name) for picture in pictures) for name in ADDED_UP}
    wrong = sum(abs(picture.difference) for picture in pictures)
    # AP takes everything that was found.
    most = max(1, len(detections))
    precision = average_precision(truth, detections, "segm", most)
    exact = sum(picture.difference == 0 for picture in pictures)
    return {
        **summarize(scores),
        **pooled_figures(sums["predicted_count"], sums["true_count"], sums["found"], wrong),
        **{name: precision[name] for name in ("AP", "AP50", "AP75")},
        **sums,
        "pictures": len(pictures),
        "exact": exact,
        "seconds_per_picture": float(np.median([picture.seconds for picture in pictures])),
    }
