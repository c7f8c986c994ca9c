"""What every evaluator that scores one image at a time shares: truth, processes, tables and files."""

import csv
import json
import logging
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from tabulate import tabulate

from ..whole_files import written_at_once

logger = logging.getLogger(__name__)

Scores = TypeVar("Scores")  # of one image: what a subclass makes of it, small enough to be sent between processes
Record = dict[str, Any]  # one image of a data set in Detectron2's standard format
Results = dict[str, dict[str, float]]  # task -> metric -> value; Detectron2 merges those of all evaluators


class PerImageEvaluator(DatasetEvaluator, Generic[Scores]):
    """Scores each image as soon as it is processed, and makes metrics of the scores of all images and processes.

    Only the scores are kept and sent between processes, never masks or maps. Subclasses say how one image is scored and
    how scores become metrics. Several tasks can be made of the same scores, so that no image is scored twice.

    Attributes:
        task: what the scores are of, for messages and file names.
        needs_truth: false for scores that are predictions in a compact form, which are collected and written for a data
            set without annotations too.
    """

    task: str
    needs_truth = True

    def __init__(self, dataset_name: str, output_dir: str | None = None, distributed: bool = True) -> None:
        """
        Args:
            dataset_name: a name of Detectron2's DatasetCatalog.
            output_dir: folder ``<task>_results.json`` of each task is written to; None: no file.
            distributed: gather the scores of all processes; false evaluates what this process has seen.

        Raises:
            ValueError: an image of a data set with annotations has none (not even an empty list), or two images
                have the same id.
        """
        self._dataset_name = dataset_name
        self._output_dir = output_dir
        self._distributed = distributed
        self._records = records_by_id(dataset_name)
        self._has_truth = self.has_truth()
        if not self._has_truth:
            logger.warning(
                f"Data set '{dataset_name}' has no annotations: there will be no '{self.task}' results for it."
            )
        self._scores: dict[Any, Scores] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str, output_dir: str) -> "PerImageEvaluator":
        """The evaluator for the model of a config."""
        return cls(dataset_name, output_dir)

    def has_truth(self) -> bool:
        """Whether the data set has something to compare predictions with."""
        return has_annotations(self._dataset_name, self._records)

    @abstractmethod
    def score(self, record: Record, output: Mapping[str, Any]) -> Scores:
        """Scores of one image: its record in the data set, and the model's output for it."""

    @abstractmethod
    def summarize(self, scores: Sequence[Scores]) -> Results:
        """Metrics by task, from the scores of all images of the data set in its order."""

    def reset(self) -> None:
        self._scores = {}

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Score a batch.

        Args:
            inputs: dicts with ``image_id``, as the data loader gives them.
            outputs: what :meth:`score` takes.

        Raises:
            ValueError: an image is not in the data set, or an output lacks something or is of another size.
        """
        if self.needs_truth and not self._has_truth:
            return
        for input_, output in zip(inputs, outputs, strict=True):
            image_id = input_["image_id"]
            if image_id not in self._records:
                raise ValueError(
                    f"Image '{input_.get('file_name', image_id)}' (image_id {image_id!r}) is not in data set "
                    f"'{self._dataset_name}': evaluate with the data set that the data loader was built for."
                )
            self._scores[image_id] = self.score(self._records[image_id], output)

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """``{task: {metric: value}}`` in the main process, empty in the others and without annotations.

        An image that several processes saw (samplers pad) counts once.

        Raises:
            ValueError: images of the data set have not been processed.
        """
        by_image = self._scores
        if self._distributed:
            comm.synchronize()
            by_image = dict(chain.from_iterable(part.items() for part in comm.gather(by_image, dst=0)))
            if not comm.is_main_process():
                return OrderedDict()
        if self.needs_truth and not self._has_truth:
            return OrderedDict()
        self._check_complete(by_image)
        # In the data set's order, so that the files do not depend on the number of processes.
        scores = [by_image[image_id] for image_id in self._records]
        results = self.summarize(scores) if self._has_truth else {}
        for task, metrics in results.items():
            table = tabulate(metrics.items(), headers=["metric", "value"], tablefmt="pipe", floatfmt=".4f")
            logger.info(f"Evaluation results of '{self._dataset_name}' for {task}:\n{table}")
        if self._output_dir is not None:
            folder = Path(self._output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            for task, metrics in results.items():
                content = {"dataset": self._dataset_name, task: metrics}
                with written_at_once(folder / f"{task}_results.json") as partial:
                    partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
            self.write(folder, scores)
        return OrderedDict(results)

    def write(self, folder: Path, scores: Sequence[Scores]) -> None:
        """Write what subclasses keep of the images, given their scores in the data set's order."""

    def write_table(self, folder: Path, scores: Sequence[Scores]) -> None:
        """Write ``<task>_per_image.csv`` of scores that are dataclasses of numbers."""
        rows = [
            {"image_id": record["image_id"], "file_name": record["file_name"], **vars(image_scores)}
            for record, image_scores in zip(self._records.values(), scores, strict=True)
        ]
        path = folder / f"{self.task}_per_image.csv"
        with written_at_once(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def _check_complete(self, scores: Mapping[Any, Scores]) -> None:
        missing = [str(record["file_name"]) for id_, record in self._records.items() if id_ not in scores]
        if missing or not self._records:
            raise ValueError(
                f"{len(missing)} of {len(self._records)} images of data set '{self._dataset_name}' were not processed, "
                f"first: {missing[:5]}. Metrics of a part are not comparable: run the model on the whole data set, or "
                "register the part as a data set of its own."
            )


def records_by_id(dataset_name: str) -> dict[Any, Record]:
    """The images of a data set; a ValueError if two have the same id."""
    records: dict[Any, Record] = {}
    for record in DatasetCatalog.get(dataset_name):
        previous = records.setdefault(record["image_id"], record)
        if previous is not record:
            raise ValueError(
                f"Data set '{dataset_name}' has two images with image_id {record['image_id']!r}: "
                f"'{previous['file_name']}' and '{record['file_name']}'. Give each image its own id."
            )
    return records


def has_annotations(dataset_name: str, records: Mapping[Any, Record]) -> bool:
    """Whether there is truth to evaluate against; a record without objects has an empty list of annotations."""
    unlabelled = [record["file_name"] for record in records.values() if "annotations" not in record]
    if unlabelled and len(unlabelled) < len(records):
        raise ValueError(
            f"Image '{unlabelled[0]}' of data set '{dataset_name}' has no 'annotations', while others have. "
            "Give an image without objects an empty list, or register unlabelled images as a data set of their own."
        )
    return not unlabelled


def checked_instances(record: Record, output: Mapping[str, Any]) -> Instances:
    """The ``instances`` of an output, on the CPU; a ValueError if there are none, or of another size than the image."""
    if "instances" not in output:
        raise ValueError(f"The model's output for '{record['file_name']}' has no 'instances', only {sorted(output)}.")
    instances = output["instances"].to("cpu")
    if tuple(instances.image_size) != (record["height"], record["width"]):
        raise ValueError(
            f"The predictions for '{record['file_name']}' are for an image of (height, width) {instances.image_size}, "
            f"but its original size is {(record['height'], record['width'])}: resize them before the evaluation."
        )
    return instances
