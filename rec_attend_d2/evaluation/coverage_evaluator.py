"""The metrics that results on KITTI's cars are published with."""

from collections.abc import Sequence

from .counting_evaluator import CountingEvaluator
from .metrics import ImageScores, summarize

_METRICS = ("MWCov", "MWCov_std", "MUCov", "MUCov_std", "AvgFP", "AvgFN", "num_images")


class CoverageEvaluator(CountingEvaluator):
    """Weighted and unweighted coverage, and objects found nowhere (results ``coverage``; paper, section 4).

    The coverages are in [0, 1], means over the images with cars; published tables show them times 100. AvgFP and AvgFN
    are numbers of objects per image, over all images. ``*_std`` are standard deviations with N - 1.
    """

    task = "coverage"

    def summarize(self, scores: Sequence[ImageScores]) -> dict[str, float]:
        summary = summarize(scores)
        return {name: summary[name] for name in _METRICS}
