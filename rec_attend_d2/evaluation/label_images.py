"""Predictions as label images, in which every pixel holds the number of its instance, and back.

Shapes: `N` instances, `H, W` image size in pixels.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from numpy.typing import ArrayLike, NDArray

from .counting_evaluator import CountingEvaluator
from .metrics import Masks
from .per_image_evaluator import Record, Results

LabelImage = NDArray[np.integer]

_LISTED_PROBLEMS = 20


def label_image(masks: Masks, scores: ArrayLike) -> NDArray[np.int32]:
    """Draw instances into one image.

    Args:
        masks: bool [N, H, W]; where they overlap, the one of the higher score is seen, or the earlier of equal ones.
        scores: [N].

    Returns:
        [H, W]; 0 is background. The instances that are seen have the numbers 1 to n, from the highest score down.
    """
    best_first = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    labels = np.zeros(masks.shape[1:], dtype=np.int32)
    for number in range(len(best_first), 0, -1):
        labels[masks[best_first[number - 1]]] = number
    seen = np.setdiff1d(labels, [0])
    # Masks that vanished leave gaps, which this closes.
    return np.searchsorted(np.concatenate([[0], seen]), labels).astype(np.int32)


def label_instances(labels: LabelImage) -> Instances:
    """Instances of class 0 and score 1 with the ``pred_masks`` of a label image [H, W]."""
    values = np.setdiff1d(labels, [0])
    instances = Instances(labels.shape)
    instances.pred_masks = torch.from_numpy(labels == values[:, None, None])
    instances.scores = torch.ones(len(values))
    instances.pred_classes = torch.zeros(len(values), dtype=torch.int64)
    return instances


def draw_predictions(
    records: Sequence[Record], predictions: Iterable[tuple[Any, Instances]], dtype: type[np.unsignedinteger]
) -> Iterator[tuple[Record, LabelImage]]:
    """Turn the predictions of a data set into label images, one at a time.

    Args:
        records: all images of the data set.
        predictions: (image_id, Instances at the image's original size with ``pred_masks`` [N, H, W] and ``scores``),
            once for each image, in any order; an image without objects has Instances of length 0.
        dtype: of the label images; limits the number of instances.

    Yields:
        An image's record and its label image [H, W].

    Raises:
        ValueError: an image is unknown, missing or given twice, its size is wrong, or it has no masks or too many.
    """
    waiting = {record["image_id"]: record for record in records}
    known = set(waiting)
    for image_id, instances in predictions:
        record = waiting.pop(image_id, None)
        if record is None:
            fault = "given twice" if image_id in known else "not an image of the data set"
            raise ValueError(f"The prediction for image_id {image_id!r} is {fault}. Give one for each image.")
        size = (record["height"], record["width"])
        if tuple(instances.image_size) != size:
            raise ValueError(
                f"The predictions for '{record['file_name']}' are of size {tuple(instances.image_size)}, but the image "
                f"is {size} (height, width): resize them to the original size."
            )
        if not instances.has("pred_masks"):
            raise ValueError(
                f"The predictions for '{record['file_name']}' have no pred_masks, only "
                f"{sorted(instances.get_fields())}: only a model with masks has something to submit."
            )
        instances = instances.to("cpu")
        labels = label_image(instances.pred_masks.numpy().astype(bool), instances.scores.numpy())
        limit = np.iinfo(dtype).max
        if labels.max(initial=0) > limit:
            raise ValueError(
                f"'{record['file_name']}' has {labels.max()} instances, but a label image of the format holds {limit}: "
                "raise the score threshold."
            )
        yield record, labels.astype(dtype)
    if waiting:
        first = next(iter(waiting.values()))
        raise ValueError(
            f"{len(waiting)} of {len(known)} images have no prediction, first '{first['file_name']}'. An image without "
            "objects needs Instances of length 0."
        )


def label_problems(labels: np.ndarray, record: Record, dtype: type[np.unsignedinteger], where: str) -> list[str]:
    """What is wrong with a label image of a submission; empty if nothing is.

    Args:
        labels: any array.
        record: its image.
        dtype: type the format asks for.
        where: begins every message.
    """
    size = (record["height"], record["width"])
    if labels.shape != size:
        return [f"{where} has the shape {labels.shape}, but the image is {size} (height, width)."]
    problems = []
    if labels.dtype != dtype:
        problems.append(f"{where} is {labels.dtype}, but the format asks for {np.dtype(dtype)}.")
    if labels.dtype.kind not in "iu":
        return problems
    used = np.setdiff1d(labels, [0])
    wrong = np.flatnonzero(used != np.arange(1, len(used) + 1))
    if len(wrong):
        fault = f"{used[0]} is negative" if used[0] < 0 else f"{wrong[0] + 1} is missing"
        problems.append(f"{where} does not number its instances 1 to n: {fault}.")
    return problems


def name_problems(found: Iterable[str], expected: Iterable[str], where: str) -> list[str]:
    """One problem for each name that is missing or surplus; begins with ``where``."""
    found, expected = set(found), set(expected)
    return [
        *(f"{where} lacks {name}; an image without objects needs an empty one." for name in sorted(expected - found)),
        *(f"{where} has {name}, which is not in the data set." for name in sorted(found - expected)),
    ]


def listed(problems: Sequence[str]) -> str:
    """The first ``problems``, a line each, and how many more there are."""
    more = [f"{len(problems) - _LISTED_PROBLEMS} more."] if len(problems) > _LISTED_PROBLEMS else []
    return "\n".join(f"  {line}" for line in [*problems[:_LISTED_PROBLEMS], *more])


def raise_problems(path: str | os.PathLike, problems: Sequence[str]) -> None:
    """Raise a ValueError that lists ``problems`` of the submission ``path``, if there are any."""
    if problems:
        raise ValueError(f"{os.fspath(path)} is no valid submission; {len(problems)} problem(s):\n{listed(problems)}")


def score_label_images(evaluator: CountingEvaluator, labels: Iterable[tuple[Record, LabelImage]]) -> Results:
    """Metrics by task that ``evaluator`` gives label images [H, W], one for each image of its data set.

    Raises:
        ValueError: the data set has no annotations.
    """
    evaluator.reset()
    for record, image in labels:
        evaluator.process([record], [{"instances": label_instances(image)}])
    results = evaluator.evaluate()
    if not results:
        raise ValueError("The data set has no annotations to score a submission against; check it without scoring.")
    return results
