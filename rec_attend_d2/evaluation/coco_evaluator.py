"""COCO's average precision (AP) by pycocotools, for any number of detections per image.

Shapes: `P` predictions of an image; `H, W` original image size in pixels. Of pycocotools' precisions: `T` IoU
thresholds, `R` recall thresholds, `C` classes, `A` ranges of area.
"""

import contextlib
import io
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.datasets.coco_content import renumbered, without_repetitions
from ..data.datasets.coco_files import keep_categories
from ..structures import as_crops
from ..whole_files import written_at_once
from .per_image_evaluator import PerImageEvaluator, Record, Results, checked_instances

logger = logging.getLogger(__name__)

# COCO's own limit.
MAX_DETECTIONS = 100

# What COCO's results need for each task, besides image, class and score. Given both, pycocotools would take the area
# of the box for that of the mask.
_TASK_KEYS = {"bbox": "bbox", "segm": "segmentation"}
_OBJECT_ID = 1

Detection = dict[str, Any]
"""One entry of COCO's results format; ``bbox`` is XYWH in pixels."""


def coco_results(instances: Instances, image_id: Any) -> list[Detection]:
    """The predictions for one image in COCO's results format; ``category_id`` is the number of the class.

    Detectron2's function makes a copy of each mask of the whole image; here the masks are encoded from their crops.

    Args:
        instances: with ``pred_boxes`` (XYXY), ``scores``, ``pred_classes`` and maybe ``pred_masks`` of either kind.
        image_id: of the image.
    """
    instances = instances.to("cpu")
    fields = {name: value for name, value in instances.get_fields().items() if name != "pred_masks"}
    results = instances_to_coco_json(Instances(instances.image_size, **fields), image_id)
    if instances.has("pred_masks"):
        for result, code in zip(results, as_crops(instances.pred_masks).rles(), strict=True):
            result["segmentation"] = code
    return results


@dataclass(frozen=True)
class CocoTruth:
    """What predictions are compared with.

    Attributes:
        coco: indexed images, categories and (unless the data set has no labels) annotations.
        class_ids: COCO's category id of class 0, 1, ...
        class_names: in the same order.
    """

    coco: COCO
    class_ids: list[int]
    class_names: list[str]

    @property
    def has_annotations(self) -> bool:
        """Whether AP can be computed."""
        return "annotations" in self.coco.dataset

    def detections(self, image_id: Any, instances: Instances) -> list[Detection]:
        """The predictions for one image in COCO's results format.

        Args:
            image_id: of an image of the data set.
            instances: at its original size, with ``pred_boxes`` (XYXY), ``scores``, ``pred_classes`` and maybe
                ``pred_masks``.

        Raises:
            ValueError: a class is unknown.
        """
        file_name = self.coco.imgs[image_id]["file_name"]
        detections = coco_results(instances, image_id)
        for detection in detections:
            number = detection["category_id"]
            if not 0 <= number < len(self.class_ids):
                raise ValueError(
                    f"A prediction for '{file_name}' has class {number}, but the data set's classes are 0 to "
                    f"{len(self.class_ids) - 1}. Train and evaluate with the same classes."
                )
            detection["category_id"] = self.class_ids[number]
        return detections


def load_truth(dataset_name: str) -> CocoTruth:
    """The annotations of a registered data set.

    They are read from its metadata's ``json_file`` (only ``subset_categories`` of them, if given), or converted from
    its dicts. The metadata stay as they are.

    Raises:
        ValueError: categories and metadata do not agree.
    """
    metadata = MetadataCatalog.get(dataset_name)
    json_file = metadata.get("json_file")
    if json_file is None:
        content = convert_to_coco_dict(dataset_name)
    else:
        if not PathManager.isfile(json_file):
            DatasetCatalog.get(dataset_name)  # makes a drawn data set, and says what is missing of others
        with PathManager.open(json_file) as file:
            content = renumbered(without_repetitions(json.load(file))[0])
        names = metadata.get("subset_categories", ())
        if names:
            content = keep_categories(content, names, json_file)
    categories = dict(sorted((category["id"], category["name"]) for category in content["categories"]))
    numbers = metadata.get("thing_dataset_id_to_contiguous_id") or {id_: i for i, id_ in enumerate(categories)}
    class_ids = sorted(numbers, key=lambda id_: numbers[id_])
    class_names = list(metadata.get("thing_classes") or [categories[id_] for id_ in class_ids])
    if set(class_ids) != set(categories) or len(class_names) != len(class_ids):
        raise ValueError(
            f"Data set '{dataset_name}' has the category ids {sorted(categories)}, but its metadata have "
            f"thing_dataset_id_to_contiguous_id {numbers} and thing_classes {class_names}. Make them agree."
        )
    return CocoTruth(_indexed(content), class_ids, class_names)


def average_precision(
    truth: CocoTruth, detections: Sequence[Detection], task: str, max_detections: int = MAX_DETECTIONS
) -> dict[str, float]:
    """COCO's AP of a data set, in percent.

    Args:
        truth: has annotations.
        detections: of all images.
        task: "segm" or "bbox".
        max_detections: for each image and class those of the highest scores count. COCO's own value is 100; more make a
            difference where an image has more objects.

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl`` and, for several classes, ``AP-<class>``. 0 where nothing
        is predicted, NaN where there is no true object.

    Raises:
        ValueError: ``max_detections`` is not positive.
    """
    _check_limit(max_detections)
    _warn_about_limit(detections, max_detections)
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = COCOeval(truth.coco, _indexed_detections(truth, detections, task), task)
        coco_eval.params.maxDets = [max_detections]
        coco_eval.evaluate()
        coco_eval.accumulate()
    # COCOeval.summarize would look for a limit of 100, and report -1 without it. [T, R, C, A]
    precision = coco_eval.eval["precision"][..., 0]
    thresholds = coco_eval.params.iouThrs
    areas = dict(zip(coco_eval.params.areaRngLbl, range(precision.shape[3]), strict=True))
    every = precision[..., areas["all"]]
    results = {
        "AP": _mean_percent(every),
        "AP50": _mean_percent(every[np.isclose(thresholds, 0.5)]),
        "AP75": _mean_percent(every[np.isclose(thresholds, 0.75)]),
        "APs": _mean_percent(precision[..., areas["small"]]),
        "APm": _mean_percent(precision[..., areas["medium"]]),
        "APl": _mean_percent(precision[..., areas["large"]]),
    }
    if len(truth.class_ids) > 1:
        position = {id_: index for index, id_ in enumerate(coco_eval.params.catIds)}
        for id_, name in zip(truth.class_ids, truth.class_names, strict=True):
            results[f"AP-{name}"] = _mean_percent(every[..., position[id_]])
    return results


class AveragePrecisionEvaluator(PerImageEvaluator[list[Detection]]):
    """COCO's AP of masks (results ``segm``), as pycocotools computes it.

    Detectron2's COCOEvaluator reports NaN while a model predicts nothing at all, as early in training, which a
    best-checkpoint hook skips; here it is 0, as COCO's own definition gives. And it would enter a converted annotation
    file into the data set's metadata, which later evaluations would silently use; here nothing is changed.

    All predictions are written to ``coco_instances_results.json``, also for a data set without annotations.
    """

    task = "segm"
    needs_truth = False

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        distributed: bool = True,
        max_detections: int = MAX_DETECTIONS,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set with annotations in a COCO json (metadata ``json_file``) or in
                Detectron2's standard format.
            output_dir: folder of the files; None: no files.
            distributed: gather the predictions of all processes.
            max_detections: see :func:`average_precision`.
        """
        _check_limit(max_detections)
        self._max_detections = max_detections
        self._truth = load_truth(dataset_name)
        super().__init__(dataset_name, output_dir, distributed)

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str, output_dir: str) -> "AveragePrecisionEvaluator":
        return cls(dataset_name, output_dir, max_detections=cfg.TEST.DETECTIONS_PER_IMAGE)

    def has_truth(self) -> bool:
        return self._truth.has_annotations

    def score(self, record: Record, output: Mapping[str, Any]) -> list[Detection]:
        """The predictions, masks run-length encoded; see :meth:`CocoTruth.detections`."""
        return self._truth.detections(record["image_id"], checked_instances(record, output))

    def summarize(self, scores: Sequence[list[Detection]]) -> Results:
        detections = list(chain.from_iterable(scores))
        return {self.task: average_precision(self._truth, detections, self.task, self._max_detections)}

    def write(self, folder: Path, scores: Sequence[list[Detection]]) -> None:
        detections = list(chain.from_iterable(scores))
        with written_at_once(folder / "coco_instances_results.json") as partial:
            partial.write_text(json.dumps(detections), encoding="utf-8")


class ClassAgnosticBoxEvaluator(AveragePrecisionEvaluator):
    """Box AP of proposals (results ``bbox``): they have no class, and all true objects are of one class, "object".

    Takes Instances with ``pred_boxes`` (XYXY, pixels of the original image) and ``scores``.
    """

    task = "bbox"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As :class:`AveragePrecisionEvaluator`."""
        super().__init__(*args, **kwargs)
        self._truth = as_one_class(self._truth)

    def score(self, record: Record, output: Mapping[str, Any]) -> list[Detection]:
        found = checked_instances(record, output)
        objects = Instances(
            found.image_size,
            pred_boxes=found.pred_boxes,
            scores=found.scores,
            pred_classes=found.scores.new_zeros(len(found)).long(),
        )
        return self._truth.detections(record["image_id"], objects)


def as_one_class(truth: CocoTruth) -> CocoTruth:
    """The same truth, in which all objects are of one class, "object"."""
    content = {**truth.coco.dataset, "categories": [{"id": _OBJECT_ID, "name": "object"}]}
    if truth.has_annotations:
        content["annotations"] = [{**a, "category_id": _OBJECT_ID} for a in content["annotations"]]
    return CocoTruth(_indexed(content), [_OBJECT_ID], ["object"])


def _indexed(content: dict) -> COCO:
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _indexed_detections(truth: CocoTruth, detections: Sequence[Detection], task: str) -> COCO:
    kept = ("image_id", "category_id", "score", _TASK_KEYS[task])
    # pycocotools adds keys of its own, which must not get into the caller's.
    copies = [{key: detection[key] for key in kept} for detection in detections]
    if copies:
        return truth.coco.loadRes(copies)
    # COCO.loadRes fails on an empty list.
    return _indexed({**truth.coco.dataset, "annotations": []})


def _mean_percent(precision: NDArray[np.float64]) -> float:
    """100 times the mean of an array of any shape without its -1, "no true object"; NaN if it has nothing else."""
    known = precision[precision > -1]
    return float(100 * known.mean()) if known.size else float("nan")


def _check_limit(max_detections: int) -> None:
    if max_detections < 1:
        raise ValueError(
            f"The largest number of detections per image is {max_detections}. Set TEST.DETECTIONS_PER_IMAGE to at "
            "least 1."
        )


def _warn_about_limit(detections: Sequence[Detection], max_detections: int) -> None:
    counts = Counter((detection["image_id"], detection["category_id"]) for detection in detections)
    crowded = {image_id for (image_id, _), count in counts.items() if count > max_detections}
    if crowded:
        logger.warning(
            f"{len(crowded)} image(s) have more than {max_detections} predictions of a class; those of the lowest "
            "scores are not evaluated. Raise TEST.DETECTIONS_PER_IMAGE to evaluate them."
        )
