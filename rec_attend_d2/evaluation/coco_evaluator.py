"""COCO's average precision (AP), with a defined value where Detectron2's evaluator has none."""

import logging
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


class AveragePrecisionEvaluator(COCOEvaluator):
    """Detectron2's :class:`COCOEvaluator` that also scores a model which predicts nothing at all.

    Early in training no stop score reaches its threshold and there is no prediction on the whole data set.
    Detectron2 reports NaN then, which a best-checkpoint hook skips and a results table cannot be sorted by. Here the
    AP of every class and size that has true objects is 0, as COCO's own definition gives; those without any stay NaN.

    Needs no C++ extension, and leaves the data set's metadata as it found it: Detectron2's evaluator would enter a
    converted annotation file there, and later evaluations would silently use it.
    """

    def __init__(
        self, dataset_name: str, tasks: tuple[str, ...], output_dir: str | None = None, distributed: bool = True
    ) -> None:
        """
        Args:
            dataset_name: a registered data set with ``thing_classes`` in its metadata, and annotations in a COCO json
                (metadata ``json_file``) or in Detectron2's standard format.
            tasks: of "bbox" and "segm".
            output_dir: folder the predictions are written to; required without a COCO json.
            distributed: gather the predictions of all processes.
        """
        metadata = MetadataCatalog.get(dataset_name)
        converted = not hasattr(metadata, "json_file")
        try:
            super().__init__(
                dataset_name,
                tasks=tasks,
                distributed=distributed,
                output_dir=output_dir,
                use_fast_impl=False,
                allow_cached_coco=False,
            )
        finally:
            if converted and hasattr(metadata, "json_file"):
                del metadata.json_file

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        if coco_eval is None:
            logging.getLogger(__name__).warning(f"No predictions on the whole data set: {iou_type} AP is 0.")
            coco_eval = _evaluate_no_detections(self._coco_api, iou_type)
        return super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)


class ClassAgnosticBoxEvaluator(AveragePrecisionEvaluator):
    """Box AP of proposals: predictions have no class, and all true objects are of one class, "object"."""

    def __init__(self, dataset_name: str, output_dir: str | None = None, distributed: bool = True) -> None:
        """As :class:`AveragePrecisionEvaluator`."""
        super().__init__(dataset_name, ("bbox",), output_dir, distributed)
        _merge_categories(self._coco_api)
        self._metadata = Metadata(
            name=dataset_name, thing_classes=["object"], thing_dataset_id_to_contiguous_id={_OBJECT_ID: 0}
        )

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Takes Instances with ``pred_boxes`` (XYXY, pixels of the original image) and ``scores``."""
        super().process(inputs, [{"instances": _as_objects(output["instances"])} for output in outputs])


_OBJECT_ID = 1


def _as_objects(instances: Instances) -> Instances:
    return Instances(
        instances.image_size,
        pred_boxes=instances.pred_boxes,
        scores=instances.scores,
        pred_classes=instances.scores.new_zeros(len(instances)).long(),
    )


def _merge_categories(coco: COCO) -> None:
    coco.dataset["categories"] = [{"id": _OBJECT_ID, "name": "object"}]
    for annotation in coco.dataset.get("annotations", []):
        annotation["category_id"] = _OBJECT_ID
    coco.createIndex()


def _evaluate_no_detections(coco_gt: COCO, iou_type: str) -> COCOeval:
    # COCO.loadRes fails on an empty list, so the index of no detections is built here.
    detections = COCO()
    detections.dataset = {
        "images": coco_gt.dataset["images"],
        "categories": coco_gt.dataset["categories"],
        "annotations": [],
    }
    detections.createIndex()
    coco_eval = COCOeval(coco_gt, detections, iou_type)
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval
