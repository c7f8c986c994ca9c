"""The metrics of the leaf segmentation challenge (CVPPP LSC), for each of its subsets and for all images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from detectron2.structures import Instances

from .counting_evaluator import CountingEvaluator
from .metrics import ImageScores, summarize
from .per_image_evaluator import Record, Results

_METRICS = ("SBD", "DiC", "abs_DiC", "FBD")


@dataclass(frozen=True)
class LeafScores(ImageScores):
    """Scores of one image, and the ``subset`` it belongs to, such as "A1"."""

    subset: str


class LeafEvaluator(CountingEvaluator):
    """Results ``counting``, and of the same scores those of the challenge per subset (``lsc``).

    ``lsc`` has SBD, DiC, abs_DiC (the challenge's |DiC|) and FBD, as means over images.
    Each metric has the standard deviation over the same images, with N - 1, as ``*_std``. The names begin with the
    subset, ``A1_SBD``, or with ``all``: every image counts alike there, whatever its subset. SBD and FBD are in [0, 1];
    the challenge's tables show them times 100.

    The images of the data set need the key ``subset``, which the data sets ``cvppp_*`` have.
    """

    def score(self, record: Record, instances: Instances) -> LeafScores:
        if "subset" not in record:
            raise ValueError(
                f"'{record['file_name']}' has no 'subset' (A1 to A5) in its data set '{self._dataset_name}': evaluate "
                "other images than CVPPP's with CountingEvaluator."
            )
        return LeafScores(**vars(super().score(record, instances)), subset=record["subset"])

    def summarize(self, scores: Sequence[ImageScores]) -> Results:
        return {**super().summarize(scores), "lsc": summarize_subsets(cast(Sequence[LeafScores], scores))}


def summarize_subsets(scores: Sequence[LeafScores]) -> dict[str, float]:
    """The challenge's metrics of each subset and of all images, from the scores of at least one image."""
    groups: dict[str, list[LeafScores]] = {}
    for image_scores in scores:
        groups.setdefault(image_scores.subset, []).append(image_scores)
    results: dict[str, float] = {}
    for subset, members in [*sorted(groups.items()), ("all", list(scores))]:
        summary = summarize(members)
        for metric in _METRICS:
            results[f"{subset}_{metric}"] = summary[metric]
            results[f"{subset}_{metric}_std"] = summary[f"{metric}_std"]
        results[f"{subset}_num_images"] = summary["num_images"]
    return results
