"""Submissions to the leaf segmentation challenge (CVPPP LSC).

A submission is a zip with the file ``answer.h5`` at its root. That has, for every plant of the test set, the dataset
``A1/plant003/label``: uint8 [H, W] at the image's original size, 0 = background, the leaves numbered 1 to n without
gaps. Images without leaves are there too, all 0.
"""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances

from ..whole_files import written_at_once
from .label_images import (
    draw_predictions,
    label_problems,
    name_problems,
    raise_problems,
    score_label_images,
)
from .leaf_evaluator import LeafEvaluator
from .per_image_evaluator import Record

ANSWER = "answer.h5"
_DTYPE = np.uint8


def pack(zip_path: str | os.PathLike, dataset_name: str, predictions: Iterable[tuple[Any, Instances]]) -> None:
    """Write a submission. A file that is there is replaced once the new one is complete.

    Args:
        zip_path: file to write; its folder is made where there is none.
        dataset_name: a registered data set whose dicts have ``subset`` and ``plant``.
        predictions: (image_id, Instances), see :func:`~rec_attend_d2.evaluation.label_images.draw_predictions`; only
            one image is held in memory at a time.

    Raises:
        ValueError: the predictions do not fit the images, or an image has more than 255 instances.
    """
    records = DatasetCatalog.get(dataset_name)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / ANSWER
        with h5py.File(answer, "w") as file:
            for record, labels in draw_predictions(records, predictions, _DTYPE):
                file.create_dataset(_key(record), data=labels, compression="gzip")
        with (
            written_at_once(Path(zip_path)) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zip_,
        ):
            zip_.write(answer, ANSWER)


def check(zip_path: str | os.PathLike, dataset_name: str) -> list[str]:
    """What is wrong with a submission.

    Args:
        zip_path: the zip.
        dataset_name: the registered data set that it is for.

    Returns:
        A sentence for each problem; empty if the submission is valid.
    """
    return _problems(Path(zip_path), DatasetCatalog.get(dataset_name))


def score(zip_path: str | os.PathLike, dataset_name: str) -> dict[str, float]:
    """Score a submission for a data set with labels; the numbers are those of :class:`LeafEvaluator`.

    They equal the numbers of the evaluation after training, in which this project's masks do not overlap either.

    Raises:
        ValueError: the submission is not valid, or the data set has no labels.
    """
    records = DatasetCatalog.get(dataset_name)
    raise_problems(zip_path, _problems(Path(zip_path), records))
    with _opened_answer(Path(zip_path)) as file:
        labels = ((record, file[_key(record)][()]) for record in records)
        return score_label_images(LeafEvaluator(dataset_name, distributed=False), labels)["lsc"]


def _key(record: Record) -> str:
    """Where the answer has the labels of an image."""
    if "subset" not in record or "plant" not in record:
        raise ValueError(
            f"'{record['file_name']}' has no 'subset' and 'plant' in its data set: only the data sets cvppp_* can be "
            "submitted to the leaf segmentation challenge."
        )
    return f"{record['subset']}/{record['plant']}/label"


class _Unreadable(ValueError):
    """There is no answer to be checked."""


@contextmanager
def _opened_answer(zip_path: Path) -> Iterator[h5py.File]:
    """The answer of a submission, unpacked to a temporary file."""
    if not zip_path.is_file():
        raise _Unreadable(f"{zip_path} does not exist.")
    if not zipfile.is_zipfile(zip_path):
        raise _Unreadable(f"{zip_path} is no zip file. Pack {ANSWER} into one.")
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(zip_path) as zip_:
                if ANSWER not in zip_.namelist():
                    raise _Unreadable(f"{zip_path} has no {ANSWER} at its root, only {zip_.namelist()[:5]}.")
                answer = zip_.extract(ANSWER, folder)
            file = h5py.File(answer, "r")
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise _Unreadable(f"{zip_path}: {ANSWER} cannot be read ({error}). Write it again.") from error
        with file:
            yield file


def _problems(zip_path: Path, records: Sequence[Record]) -> list[str]:
    try:
        with _opened_answer(zip_path) as file:
            return _answer_problems(file, records)
    except _Unreadable as error:
        return [str(error)]


def _answer_problems(file: h5py.File, records: Sequence[Record]) -> list[str]:
    expected = {_key(record): record for record in records}
    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    problems = name_problems(found, expected, ANSWER)
    for key in sorted(expected.keys() & found.keys()):
        try:
            labels = found[key][()]
        except OSError as error:
            problems.append(f"{ANSWER}: {key} is damaged ({error}).")
            continue
        problems += label_problems(np.asarray(labels), expected[key], _DTYPE, f"{ANSWER}: {key}")
    return problems
