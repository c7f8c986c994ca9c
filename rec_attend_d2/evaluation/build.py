"""Which evaluators a data set and a model get."""

import os
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from .box_counting_evaluator import BoxCountingEvaluator
from .cityscapes_evaluator import CityscapesEvaluator
from .coco_evaluator import AveragePrecisionEvaluator, ClassAgnosticBoxEvaluator
from .counting_evaluator import CountingEvaluator, CoverageEvaluator, LeafEvaluator
from .foreground_evaluator import ForegroundEvaluator

Builder = Callable[[CfgNode, str, str], list[DatasetEvaluator]]
"""(config, name of the data set, output folder) -> evaluators whose results have distinct top-level keys."""


def build_mask_evaluators(cfg: CfgNode, dataset_name: str, output_folder: str) -> list[DatasetEvaluator]:
    """Mask AP (results ``segm``) and counting (``counting``) for a model that outputs ``pred_masks``."""
    return [_mask_precision(cfg, dataset_name, output_folder), CountingEvaluator(dataset_name, output_folder)]


def build_leaf_evaluators(cfg: CfgNode, dataset_name: str, output_folder: str) -> list[DatasetEvaluator]:
    """Those of instance masks, and the leaf challenge's metrics per subset (``lsc``)."""
    return [_mask_precision(cfg, dataset_name, output_folder), LeafEvaluator(dataset_name, output_folder)]


def build_car_evaluators(cfg: CfgNode, dataset_name: str, output_folder: str) -> list[DatasetEvaluator]:
    """Those of instance masks, and KITTI's coverage metrics (``coverage``)."""
    return [_mask_precision(cfg, dataset_name, output_folder), CoverageEvaluator(dataset_name, output_folder)]


def build_cityscapes_evaluators(cfg: CfgNode, dataset_name: str, output_folder: str) -> list[DatasetEvaluator]:
    """Cityscapes' own AP (results ``cityscapes``) and counting (``counting``)."""
    return [CityscapesEvaluator(dataset_name, output_folder), CountingEvaluator(dataset_name, output_folder)]


def build_box_evaluators(cfg: CfgNode, dataset_name: str, output_folder: str) -> list[DatasetEvaluator]:
    """Class-agnostic box AP (results ``bbox``) and counting (``box_counting``) for a model without masks."""
    return [
        ClassAgnosticBoxEvaluator(dataset_name, output_folder, max_detections=cfg.TEST.DETECTIONS_PER_IMAGE),
        BoxCountingEvaluator(dataset_name, output_folder),
    ]


def build_foreground_evaluators(cfg: CfgNode, dataset_name: str, output_folder: str) -> list[DatasetEvaluator]:
    """IoU of the foreground or of semantic classes, and accuracy of angles (results ``foreground``), for stage A."""
    node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
    return [ForegroundEvaluator(dataset_name, node.FOREGROUND_CLASSES, node.ANGLE_BINS, output_folder)]


# evaluator_type in the data set's metadata -> its evaluators. Add an entry to evaluate a kind of data set of your own.
DATASET_EVALUATORS: dict[str, Builder] = {
    "coco": build_mask_evaluators,
    "cvppp": build_leaf_evaluators,
    "kitti": build_car_evaluators,
    "cityscapes_instance": build_cityscapes_evaluators,
}

# Meta-architectures that are judged by something else than instance masks, whatever the data set.
ARCHITECTURE_EVALUATORS: dict[str, Builder] = {
    "RecAttendBoxProposer": build_box_evaluators,
    "RecAttendPreprocessor": build_foreground_evaluators,
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluators:
    """The evaluators of a data set for the model of a config.

    Args:
        cfg: reads MODEL.META_ARCHITECTURE, OUTPUT_DIR and what the builders need.
        dataset_name: a registered data set with ``evaluator_type`` in its metadata.
        output_folder: where results are written to; by default ``inference/<data set>`` in OUTPUT_DIR, so that
            several data sets in DATASETS.TEST do not overwrite each other's files.

    Raises:
        ValueError: the data set has no ``evaluator_type``, or an unknown one.
    """
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    builder = ARCHITECTURE_EVALUATORS.get(cfg.MODEL.META_ARCHITECTURE) or _dataset_builder(dataset_name)
    return DatasetEvaluators(builder(cfg, dataset_name, folder))


def _mask_precision(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    return AveragePrecisionEvaluator(dataset_name, output_folder, max_detections=limit)


def _dataset_builder(dataset_name: str) -> Builder:
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in DATASET_EVALUATORS:
        raise ValueError(
            f"Data set '{dataset_name}' has evaluator_type {evaluator_type!r} in its metadata; known types are "
            f"{sorted(DATASET_EVALUATORS)}. Set one of them with MetadataCatalog.get('{dataset_name}')"
            ".set(evaluator_type=...), or add yours to rec_attend_d2.evaluation.build.DATASET_EVALUATORS."
        )
    return DATASET_EVALUATORS[evaluator_type]
