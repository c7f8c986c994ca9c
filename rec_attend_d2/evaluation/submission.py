"""Files for test servers: one interface to all formats."""

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from fvcore.common.registry import Registry

from ..registry import register_as
from . import submission_cityscapes, submission_coco, submission_cvppp
from .per_image_evaluator import has_annotations, records_by_id

SUBMISSION_REGISTRY = Registry("SUBMISSION")
SUBMISSION_REGISTRY.__doc__ = """:class:`SubmissionFormat` by name."""

# (image_id, Instances at the image's original size) of every image, one after another.
Predictions = Iterable[tuple[Any, Instances]]
PathLike = str | os.PathLike


@dataclass(frozen=True)
class SubmissionFormat:
    """How a format is written, checked and scored.

    Attributes:
        suffix: of its files.
        pack: (path, data set, predictions) writes a file.
        check: (path, data set) gives what is wrong with it, nothing if it is valid.
        score: (path, data set, largest number of detections per image) gives the official metrics of a data set with
            labels; formats without such a limit ignore it.
    """

    suffix: str
    pack: Callable[[PathLike, str, Predictions], None]
    check: Callable[[PathLike, str], list[str]]
    score: Callable[[PathLike, str, int], dict[str, float]]


def _pack_cityscapes(path: PathLike, dataset_name: str, predictions: Predictions) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for image_id, instances in predictions:
            submission_cityscapes.write_image(Path(folder), image_id, instances)
        submission_cityscapes.pack(Path(folder), Path(path))


def _check_cityscapes(path: PathLike, dataset_name: str) -> list[str]:
    sizes = {record["image_id"]: (record["height"], record["width"]) for record in DatasetCatalog.get(dataset_name)}
    return submission_cityscapes.check(Path(path), sizes)


def _score_cityscapes(path: PathLike, dataset_name: str, max_detections: int) -> dict[str, float]:
    return submission_cityscapes.score(Path(path), Path(MetadataCatalog.get(dataset_name).gt_dir))


register_as(SUBMISSION_REGISTRY, "cityscapes")(
    SubmissionFormat(".zip", _pack_cityscapes, _check_cityscapes, _score_cityscapes)
)
register_as(SUBMISSION_REGISTRY, "cvppp")(
    SubmissionFormat(
        ".zip",
        submission_cvppp.pack,
        submission_cvppp.check,
        lambda path, name, max_detections: submission_cvppp.score(path, name),
    )
)
register_as(SUBMISSION_REGISTRY, "coco")(
    SubmissionFormat(".json", submission_coco.pack, submission_coco.check, submission_coco.score)
)


def has_labels(dataset_name: str) -> bool:
    """Whether the images of a data set have annotations, so that a submission for it can be scored."""
    return has_annotations(dataset_name, records_by_id(dataset_name))
