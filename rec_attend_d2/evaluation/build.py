"""Which evaluators a data set and a model get."""

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from .box_counting_evaluator import BoxCountingEvaluator
from .cityscapes_evaluator import CityscapesEvaluator
from .coco_evaluator import AveragePrecisionEvaluator, ClassAgnosticBoxEvaluator
from .counting_evaluator import CountingEvaluator, CoverageEvaluator, LeafEvaluator
from .foreground_evaluator import ForegroundEvaluator
from .per_image_evaluator import PerImageEvaluator

Evaluators = tuple[type[PerImageEvaluator], ...]  # whose results have distinct top-level keys

# evaluator_type in the data set's metadata -> its evaluators. Add an entry to evaluate a kind of data set of your own.
DATASET_EVALUATORS: dict[str, Evaluators] = {
    "coco": (AveragePrecisionEvaluator, CountingEvaluator),
    "cvppp": (AveragePrecisionEvaluator, LeafEvaluator),
    "kitti": (AveragePrecisionEvaluator, CoverageEvaluator),
    "cityscapes_instance": (CityscapesEvaluator, CountingEvaluator),
}

# Meta-architectures that are judged by something else than instance masks, whatever the data set.
ARCHITECTURE_EVALUATORS: dict[str, Evaluators] = {
    "RecAttendBoxProposer": (ClassAgnosticBoxEvaluator, BoxCountingEvaluator),
    "RecAttendPreprocessor": (ForegroundEvaluator,),
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluators:
    """The evaluators of a data set for the model of a config.

    Args:
        cfg: reads MODEL.META_ARCHITECTURE, OUTPUT_DIR and what the evaluators' ``from_config`` need.
        dataset_name: a registered data set with ``evaluator_type`` in its metadata.
        output_folder: where results are written to; by default ``inference/<data set>`` in OUTPUT_DIR, so that
            several data sets in DATASETS.TEST do not overwrite each other's files.

    Raises:
        ValueError: the data set has no ``evaluator_type``, or an unknown one.
    """
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    classes = ARCHITECTURE_EVALUATORS.get(cfg.MODEL.META_ARCHITECTURE) or _dataset_evaluators(dataset_name)
    return DatasetEvaluators([evaluator.from_config(cfg, dataset_name, folder) for evaluator in classes])


def _dataset_evaluators(dataset_name: str) -> Evaluators:
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in DATASET_EVALUATORS:
        raise ValueError(
            f"Data set '{dataset_name}' has evaluator_type {evaluator_type!r} in its metadata; known types are "
            f"{sorted(DATASET_EVALUATORS)}. Set one of them with MetadataCatalog.get('{dataset_name}')"
            ".set(evaluator_type=...), or add yours to rec_attend_d2.evaluation.build.DATASET_EVALUATORS."
        )
    return DATASET_EVALUATORS[evaluator_type]
