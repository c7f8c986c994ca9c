"""Submissions to the leaf segmentation challenge (CVPPP LSC).

A submission is a zip with the file ``answer.h5`` at its root. That has, for every plant of the test set, the dataset
``A1/plant003/label``: a label image, uint8 [H, W] at the image's original size, 0 = background, the leaves numbered 1
to n without gaps. Images without leaves are there too, all 0.

Shapes: `N` instances, `H, W` image size in pixels.
"""

import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances
from numpy.typing import ArrayLike, NDArray

from ..structures import AnyMasks, MaskCrops, as_crops
from ..whole_files import written_at_once
from .counting_evaluator import LeafEvaluator
from .per_image_evaluator import Record
from .submission import PathLike, Predictions, matched, opened_zip, raise_problems, size_problem

SUFFIX = ".zip"
ANSWER = "answer.h5"
_MOST_LEAVES = np.iinfo(np.uint8).max


def pack(path: PathLike, dataset_name: str, predictions: Predictions) -> None:
    """Write a submission. A file that is there is replaced once the new one is complete.

    Args:
        path: zip to write; its folder is made where there is none.
        dataset_name: a registered data set whose dicts have ``subset`` and ``plant``.
        predictions: classes are ignored.

    Raises:
        ValueError: the predictions do not fit the images, or an image has more than 255 instances.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / ANSWER
        with h5py.File(answer, "w") as file:
            for record, instances in matched(dataset_name, predictions):
                labels = label_image(instances.pred_masks, instances.scores.numpy())
                if labels.max(initial=0) > _MOST_LEAVES:
                    raise ValueError(
                        f"'{record['file_name']}' has {labels.max()} instances, but a label image of the format holds "
                        f"{_MOST_LEAVES}: raise the score threshold."
                    )
                file.create_dataset(_key(record), data=labels.astype(np.uint8), compression="gzip")
        with written_at_once(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zip_:
            zip_.write(answer, ANSWER)


def check(path: PathLike, dataset_name: str) -> list[str]:
    """What is wrong with a submission for a data set, a sentence for each problem; empty if it is valid."""
    expected = {_key(record): record for record in DatasetCatalog.get(dataset_name)}
    try:
        pixels = sum(record["height"] * record["width"] for record in expected.values())
        with _opened_answer(Path(path), pixels) as file:
            return _answer_problems(file, expected)
    except ValueError as error:
        return [str(error)]


def score(path: PathLike, dataset_name: str) -> dict[str, float]:
    """Score a submission for a data set with labels; the numbers are the ``lsc`` of :class:`LeafEvaluator`.

    They equal the numbers of the evaluation after training, in which this project's masks do not overlap either.

    Raises:
        ValueError: the submission is not valid, or the data set has no labels.
    """
    raise_problems(path, check(path, dataset_name))
    evaluator = LeafEvaluator(dataset_name, distributed=False)
    records = DatasetCatalog.get(dataset_name)
    with _opened_answer(Path(path), sum(record["height"] * record["width"] for record in records)) as file:
        for record in records:
            evaluator.process([record], [{"instances": label_instances(file[_key(record)][()])}])
    results = evaluator.evaluate()
    if not results:
        raise ValueError("The data set has no annotations to score a submission against; check it without scoring.")
    return results["lsc"]


def label_image(masks: AnyMasks, scores: ArrayLike) -> NDArray[np.int32]:
    """Draw instances into one image.

    Args:
        masks: N masks; where they overlap, the one of the higher score is seen, or the earlier of equal ones.
        scores: [N].

    Returns:
        [H, W]; 0 is background. The instances that are seen have the numbers 1 to n, from the highest score down.
    """
    best_first = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    labels = as_crops(masks)[best_first].label_image(np.int32)
    seen = np.setdiff1d(labels, [0])
    # Masks that vanished leave gaps, which this closes.
    return np.searchsorted(np.concatenate([[0], seen]), labels).astype(np.int32)


def label_instances(labels: NDArray[np.integer]) -> Instances:
    """Instances of class 0 and score 1 with the ``pred_masks`` of a label image [H, W]; each value but 0 is one."""
    values = np.setdiff1d(labels, [0])
    instances = Instances(labels.shape)
    instances.pred_masks = MaskCrops.from_labels(labels, int(labels.max(initial=0)))[values.astype(np.int64) - 1]
    instances.scores = torch.ones(len(values))
    instances.pred_classes = torch.zeros(len(values), dtype=torch.int64)
    return instances


def _key(record: Record) -> str:
    """Where the answer has the labels of an image."""
    if "subset" not in record or "plant" not in record:
        raise ValueError(
            f"'{record['file_name']}' has no 'subset' and 'plant' in its data set: only the data sets cvppp_* can be "
            "submitted to the leaf segmentation challenge."
        )
    return f"{record['subset']}/{record['plant']}/label"


@contextmanager
def _opened_answer(path: Path, pixels: int) -> Iterator[h5py.File]:
    """The answer of a submission about so many pixels, unpacked to a temporary file.

    Raises:
        ValueError: there is none to be read, or it is far too large.
    """
    with tempfile.TemporaryDirectory() as folder, opened_zip(path) as zip_:
        if ANSWER not in zip_.namelist():
            raise ValueError(f"{path} has no {ANSWER} at its root, only {zip_.namelist()[:5]}.")
        problem = size_problem(zip_.getinfo(ANSWER), pixels)
        if problem:
            raise ValueError(f"{path}: {ANSWER} {problem}. Write it again.")
        try:
            file = h5py.File(zip_.extract(ANSWER, folder), "r")
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path}: {ANSWER} cannot be read ({error}). Write it again.") from error
        with file:
            yield file


def _answer_problems(file: h5py.File, expected: Mapping[str, Record]) -> list[str]:
    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    problems = [f"{ANSWER} lacks {key}; an image without objects needs an empty one." for key in missing]
    problems += [f"{ANSWER} has {key}, which is not in the data set." for key in surplus]
    for key in sorted(expected.keys() & found.keys()):
        size = expected[key]["height"], expected[key]["width"]
        if found[key].shape != size:  # of a huge one nothing is read
            shape = found[key].shape
            problems.append(f"{ANSWER}: {key} has the shape {shape}, but the image is {size} (height, width).")
            continue
        try:
            problem = label_problem(np.asarray(found[key][()]), size)
        except OSError as error:
            problem = f"is damaged ({error})"
        problems += [f"{ANSWER}: {key} {problem}."] if problem else []
    return problems


def label_problem(labels: np.ndarray, size: tuple[int, int]) -> str:
    """What is wrong with an array as the label image of an image of ``size`` (H, W); empty if nothing is."""
    if labels.shape != size:
        return f"has the shape {labels.shape}, but the image is {size} (height, width)"
    if labels.dtype != np.uint8:
        return f"is {labels.dtype}, but the format asks for uint8"
    used = np.setdiff1d(labels, [0])
    missing = np.setdiff1d(np.arange(1, len(used) + 1), used)
    return f"does not number its instances 1 to n: {missing[0]} is missing" if len(missing) else ""
