"""Metrics, Detectron2 evaluators built on them, and which of them a data set and a model get."""

from .box_counting_evaluator import BoxCountingEvaluator
from .build import build_evaluator
from .cityscapes_evaluator import CityscapesEvaluator
from .coco_evaluator import AveragePrecisionEvaluator, ClassAgnosticBoxEvaluator
from .counting_evaluator import CountingEvaluator, CoverageEvaluator, LeafEvaluator
from .foreground_evaluator import ForegroundEvaluator
from .metrics import ImageScores, score_image, summarize

__all__ = [
    "AveragePrecisionEvaluator",
    "BoxCountingEvaluator",
    "CityscapesEvaluator",
    "ClassAgnosticBoxEvaluator",
    "CountingEvaluator",
    "CoverageEvaluator",
    "ForegroundEvaluator",
    "ImageScores",
    "LeafEvaluator",
    "build_evaluator",
    "score_image",
    "summarize",
]
