"""The metrics of the paper on instance masks: counting, symmetric best dice, coverage; and those of its data sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..data.segmentation import annotation_crop
from ..structures import MaskCrops
from .metrics import ImageScores, drop_crowd, score_image, summarize
from .per_image_evaluator import PerImageEvaluator, Record, Results, checked_instances

_KITTI_METRICS = ("MWCov", "MWCov_std", "MUCov", "MUCov_std", "AvgFP", "AvgFN", "num_images")
_LEAF_METRICS = ("SBD", "DiC", "abs_DiC", "FBD")


class CountingEvaluator(PerImageEvaluator[ImageScores]):
    """Scores ``pred_masks`` against the data set's annotations, at the original size (results ``counting``).

    Classes are ignored. The count of an image is the number of predicted masks with at least one pixel. Crowd regions
    are not instances: nothing is matched to them, and predictions that lie mostly inside one are ignored, see
    :func:`~rec_attend_d2.evaluation.metrics.in_crowd`. The metrics are those of
    :func:`~rec_attend_d2.evaluation.metrics.summarize` (paper, section 4).
    """

    task = "counting"

    def score(self, record: Record, output: Mapping[str, Any]) -> ImageScores:
        instances = checked_instances(record, output)
        if not instances.has("pred_masks"):
            raise ValueError(
                f"The predictions for '{record['file_name']}' have no pred_masks, only "
                f"{sorted(instances.get_fields())}: a model without masks is evaluated by BoxCountingEvaluator."
            )
        gt_masks = true_masks(record, iscrowd=0)
        scored = drop_crowd(instances.pred_masks, gt_masks, true_masks(record, iscrowd=1))
        return score_image(scored, gt_masks)

    def summarize(self, scores: Sequence[ImageScores]) -> Results:
        return {"counting": summarize(scores)}

    def write(self, folder: Path, scores: Sequence[ImageScores]) -> None:
        self.write_table(folder, scores)


class CoverageEvaluator(CountingEvaluator):
    """Results ``counting``, and of the same scores those published for KITTI (``coverage``; paper, section 4).

    ``coverage`` has weighted and unweighted coverage, and the numbers of objects found nowhere.
    The coverages are in [0, 1], means over the images with cars; published tables show them times 100. AvgFP and AvgFN
    are numbers of objects per image, over all images. ``*_std`` are standard deviations with N - 1.
    """

    def summarize(self, scores: Sequence[ImageScores]) -> Results:
        results = super().summarize(scores)
        return {**results, "coverage": {name: results["counting"][name] for name in _KITTI_METRICS}}


@dataclass(frozen=True)
class LeafScores(ImageScores):
    """Scores of one image, and the ``subset`` it belongs to, such as "A1"."""

    subset: str


class LeafEvaluator(CountingEvaluator):
    """Results ``counting``, and of the same scores those of the leaf segmentation challenge (``lsc``).

    ``lsc`` has SBD, DiC, abs_DiC (the challenge's |DiC|) and FBD, as means over images.
    Each metric has the standard deviation over the same images, with N - 1, as ``*_std``. The names begin with the
    subset, ``A1_SBD``, or with ``all``: every image counts alike there, whatever its subset. SBD and FBD are in [0, 1];
    the challenge's tables show them times 100.

    The images of the data set need the key ``subset``, which the data sets ``cvppp_*`` have.
    """

    def score(self, record: Record, output: Mapping[str, Any]) -> LeafScores:
        if "subset" not in record:
            raise ValueError(
                f"'{record['file_name']}' has no 'subset' (A1 to A5) in its data set '{self._dataset_name}': evaluate "
                "other images than CVPPP's with CountingEvaluator."
            )
        return LeafScores(**vars(super().score(record, output)), subset=record["subset"])

    def summarize(self, scores: Sequence[ImageScores]) -> Results:
        groups: dict[str, list[ImageScores]] = {}
        for image_scores in cast(Sequence[LeafScores], scores):
            groups.setdefault(image_scores.subset, []).append(image_scores)
        results: dict[str, float] = {}
        for subset, members in [*sorted(groups.items()), ("all", scores)]:
            summary = summarize(members)
            for metric in _LEAF_METRICS:
                results[f"{subset}_{metric}"] = summary[metric]
                results[f"{subset}_{metric}_std"] = summary[f"{metric}_std"]
            results[f"{subset}_num_images"] = summary["num_images"]
        return {**super().summarize(scores), "lsc": results}


def true_masks(record: Record, iscrowd: int) -> MaskCrops:
    """The masks of the annotations of one kind, at the original size; may be none."""
    size = (record["height"], record["width"])
    return MaskCrops.from_crops(
        (
            annotation_crop(annotation, size, f"{record['file_name']}: annotation number {index}")
            for index, annotation in enumerate(record["annotations"])
            if annotation.get("iscrowd", 0) == iscrowd
        ),
        size,
    )
