"""Results on KITTI's cars as files that others can score.

There is no test server for the instances of KITTI's cars, so the format is this project's own, as near to the data
set's label images as possible: a zip with one 16-bit grey PNG per image at its root, named like the image
(``000123.png``) and of its size; 0 = background, the cars numbered 1 to n without gaps. Images without cars are there
too, all 0.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances
from PIL import Image

from ..whole_files import written_at_once
from .coverage_evaluator import CoverageEvaluator
from .label_images import (
    LabelImage,
    draw_predictions,
    label_problems,
    name_problems,
    raise_problems,
    score_label_images,
)
from .per_image_evaluator import Record

_DTYPE = np.uint16


def pack(zip_path: str | os.PathLike, dataset_name: str, predictions: Iterable[tuple[Any, Instances]]) -> None:
    """Write the label images of a data set. A file that is there is replaced once the new one is complete.

    Args:
        zip_path: file to write; its folder is made where there is none.
        dataset_name: a registered data set.
        predictions: (image_id, Instances), see :func:`~rec_attend_d2.evaluation.label_images.draw_predictions`; only
            one image is held in memory at a time.

    Raises:
        ValueError: the predictions do not fit the images, or an image has more than 65535 instances.
    """
    records = DatasetCatalog.get(dataset_name)
    with written_at_once(Path(zip_path)) as temporary, zipfile.ZipFile(temporary, "w") as zip_:
        for record, labels in draw_predictions(records, predictions, _DTYPE):
            encoded = cv2.imencode(".png", labels)[1]
            zip_.writestr(_member(record), encoded.tobytes())


def check(zip_path: str | os.PathLike, dataset_name: str) -> list[str]:
    """What is wrong with a zip of label images.

    Args:
        zip_path: the zip.
        dataset_name: the registered data set that it is for.

    Returns:
        A sentence for each problem; empty if there is none.
    """
    return _problems(Path(zip_path), DatasetCatalog.get(dataset_name))


def score(zip_path: str | os.PathLike, dataset_name: str) -> dict[str, float]:
    """Score label images for a data set with labels; the numbers are those of :class:`CoverageEvaluator`.

    They equal the numbers of the evaluation after training, in which this project's masks do not overlap either.

    Raises:
        ValueError: the zip is not valid, or the data set has no labels.
    """
    records = DatasetCatalog.get(dataset_name)
    raise_problems(zip_path, _problems(Path(zip_path), records))
    with zipfile.ZipFile(zip_path) as zip_:
        labels = ((record, _read_member(zip_, _member(record))) for record in records)
        return score_label_images(CoverageEvaluator(dataset_name, distributed=False), labels)["coverage"]


def _problems(zip_path: Path, records: Sequence[Record]) -> list[str]:
    if not zip_path.is_file():
        return [f"{zip_path} does not exist."]
    if not zipfile.is_zipfile(zip_path):
        return [f"{zip_path} is no zip file. Pack the label images into one."]
    expected = {_member(record): record for record in records}
    with zipfile.ZipFile(zip_path) as zip_:
        found = set(zip_.namelist())
        problems = name_problems(found, expected, zip_path.name)
        for member in sorted(found & expected.keys()):
            try:
                problems += label_problems(_read_member(zip_, member), expected[member], _DTYPE, member)
            except ValueError as error:
                problems.append(str(error))
    return problems


def _member(record: Record) -> str:
    """Name of an image's label image in the zip."""
    return f"{Path(record['file_name']).stem}.png"


def _read_member(zip_: zipfile.ZipFile, member: str) -> LabelImage:
    """A label image as it is stored. Raises ValueError if it cannot be decoded."""
    try:
        # Not OpenCV, which gives the upper part of an image whose end is missing.
        with Image.open(io.BytesIO(zip_.read(member))) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{member} is damaged or no image ({error}). Write it again.") from error
