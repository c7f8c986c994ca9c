"""The metrics that results on KITTI's cars are published with."""

from collections.abc import Sequence

from .counting_evaluator import CountingEvaluator
from .metrics import ImageScores
from .per_image_evaluator import Results

_METRICS = ("MWCov", "MWCov_std", "MUCov", "MUCov_std", "AvgFP", "AvgFN", "num_images")


class CoverageEvaluator(CountingEvaluator):
    """Results ``counting``, and of the same scores those published for KITTI (``coverage``; paper, section 4).

    ``coverage`` has weighted and unweighted coverage, and the numbers of objects found nowhere.
    The coverages are in [0, 1], means over the images with cars; published tables show them times 100. AvgFP and AvgFN
    are numbers of objects per image, over all images. ``*_std`` are standard deviations with N - 1.
    """

    def summarize(self, scores: Sequence[ImageScores]) -> Results:
        results = super().summarize(scores)
        return {**results, "coverage": {name: results["counting"][name] for name in _METRICS}}
