"""Chooses the score from which on something counts as an object.

The fast model claims what reaches the threshold before it looks again, and then looks at the rest. With another
threshold it sees other memories, so it has to run for each one: scores can't just be cut afterwards.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.metrics import pooled_figures
from ..prediction import Predictor
from .measure import PictureResult, annotated_records, masks_of, score_picture
from .selection import evenly_spaced

USUAL = 0.5
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
# Differences in merit up to this one are chance on some 20 pictures.
FLAT = 0.005
PICTURES = 20


@dataclass(frozen=True)
class Tried:
    """What one threshold gives: mean SBD of the pictures in [0, 1], and the relative count error of all together."""

    threshold: float
    sbd: float
    relative_count_error: float

    @property
    def merit(self) -> float:
        """SBD minus relative count error: good outlines and a right count weigh alike; at most 1."""
        return self.sbd - self.relative_count_error


@dataclass(frozen=True)
class Chosen:
    """The threshold that was chosen, what every candidate gave, and on how many pictures."""

    threshold: float
    tried: list[Tried]
    pictures: int


def choose_threshold(
    predictor: Predictor,
    dataset_name: str,
    max_pictures: int = PICTURES,
    progress: Callable[[Sequence[dict]], Iterable[dict]] = iter,
) -> Chosen:
    """Try :data:`THRESHOLDS` on pictures of a data set, and choose the one of the largest merit, see :class:`Tried`.

    Of those that come within :data:`FLAT` of it, the one nearest to 0.5 is chosen: where the threshold hardly matters,
    an extreme one would be chance. The predictor keeps its own threshold.

    Args:
        predictor: of a model that finds masks.
        dataset_name: a registered data set with annotations, that the model was trained on or may be fitted to.
        max_pictures: so many at most are tried, spread evenly over those with objects.
        progress: goes over the pictures, such as ``tqdm``.

    Raises:
        ValueError: ``max_pictures`` is not positive, or no picture has objects, or see :func:`.measure.measure`.
    """
    if max_pictures < 1:
        raise ValueError(f"A threshold can't be chosen on {max_pictures} pictures; give at least 1.")
    with_objects = [record for record in annotated_records(dataset_name) if _has_objects(record)]
    if not with_objects:
        raise ValueError(f"No picture of data set '{dataset_name}' has an object, which choosing a threshold needs.")
    records = evenly_spaced(with_objects, max_pictures)
    results: dict[float, list[PictureResult]] = {threshold: [] for threshold in THRESHOLDS}
    before = predictor.score_threshold
    try:
        for record in progress(records):
            image = predictor.read(record["file_name"])
            for threshold, of_threshold in results.items():
                predictor.score_threshold = threshold
                (prediction,) = predictor.predict([image])
                of_threshold.append(score_picture(record, masks_of(prediction.instances, record))[0])
    finally:
        predictor.score_threshold = before
    tried = [_tried(threshold, pictures) for threshold, pictures in results.items()]
    return Chosen(best_of(tried), tried, len(records))


def best_of(tried: Sequence[Tried]) -> float:
    """The threshold that :func:`choose_threshold` takes."""
    most = max(candidate.merit for candidate in tried)
    good = [candidate for candidate in tried if candidate.merit >= most - FLAT]
    # Of two equally near ones, such as 0.4 and 0.6, the better one.
    return min(good, key=lambda candidate: (round(abs(candidate.threshold - USUAL), 6), -candidate.merit)).threshold


def _has_objects(record: dict) -> bool:
    return any(not annotation.get("iscrowd", 0) for annotation in record["annotations"])


def _tried(threshold: float, pictures: Sequence[PictureResult]) -> Tried:
    figures = pooled_figures(
        sum(picture.predicted_count for picture in pictures),
        sum(picture.true_count for picture in pictures),
        sum(picture.found for picture in pictures),
        sum(abs(picture.difference) for picture in pictures),
    )
    return Tried(threshold, float(np.mean([picture.sbd for picture in pictures])), figures["relative_count_error"])
