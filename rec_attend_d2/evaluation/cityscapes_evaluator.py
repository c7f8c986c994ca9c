"""Cityscapes' instance scores, whatever version of Detectron2 is installed and without a GPU."""

import json
import logging
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from ..data.cityscapes_scripts import cityscapes_module
from ..data.datasets.cityscapes import FINE
from .cityscapes_scoring import has_distances, score_predictions
from .per_image_evaluator import checked_instances, records_by_id
from .submission_cityscapes import text_file, write_image

logger = logging.getLogger(__name__)

_TASK = "cityscapes"
_PREDICTIONS = "cityscapes_predictions"


class CityscapesEvaluator(DatasetEvaluator):
    """AP, AP50 and, with disparity and camera files, AP100m and AP50m by cityscapesscripts (results ``cityscapes``).

    Predictions are Instances at the image's original size with ``pred_masks`` bool [N, h, w], ``scores`` and
    ``pred_classes`` (0 to 7). Each process writes those it made into one folder, in the test server's format, and the
    main process scores them. For a split without labels the files are all there is; see
    :func:`.submission_cityscapes.pack`.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None, distributed: bool = True) -> None:
        """
        Args:
            dataset_name: of :func:`~rec_attend_d2.data.datasets.cityscapes.register_cityscapes`.
            output_dir: ``cityscapes_predictions`` (replaced) and ``cityscapes_results.json`` are written to it; all
                processes have to see it. None: a temporary folder, removed after the evaluation, of which the
                processes of one machine can see the same.
            distributed: score the files of all processes; false scores what this process wrote.

        Raises:
            ValueError: the data set has no fine labels but coarse ones.
            ImportError: cityscapesscripts is missing.
        """
        # Not only after hours of predictions.
        cityscapes_module("evaluation.evalInstanceLevelSemanticLabeling")
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.truth_type != FINE:
            raise ValueError(
                f"Data set '{dataset_name}' has coarse labels ({metadata.truth_type}), whose regions are no instances "
                "to be scored. Put another data set into DATASETS.TEST, such as rec_attend_cityscapes_val."
            )
        self._dataset_name = dataset_name
        self._gt_dir = Path(metadata.gt_dir) if metadata.gt_dir else None
        self._records = records_by_id(dataset_name)
        self._output_dir = output_dir
        self._distributed = distributed
        self._temporary: tempfile.TemporaryDirectory | None = None
        self._folder: Path | None = None
        if self._gt_dir is None and output_dir is None:
            logger.warning(f"Data set '{dataset_name}' has no labels, and without output_dir no files are kept either.")

    def reset(self) -> None:
        folder = self._new_folder() if self._is_main() else Path()
        # Nobody writes before the main process has removed what an earlier evaluation left.
        self._folder = comm.all_gather(folder)[0] if self._distributed else folder

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Write the predictions of a batch.

        Args:
            inputs: dicts with ``image_id``, as the data loader gives them.
            outputs: dicts with ``instances``.

        Raises:
            ValueError: an image is not in the data set, an output has no ``instances``, or they are not of the image's
                original size or not valid.
        """
        if self._folder is None:
            raise RuntimeError("Call reset() before process().")
        for input_, output in zip(inputs, outputs, strict=True):
            image_id = input_["image_id"]
            if image_id not in self._records:
                raise ValueError(f"Image '{image_id}' is not in data set '{self._dataset_name}', the one to evaluate.")
            write_image(self._folder, image_id, checked_instances(self._records[image_id], output))

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """``{"cityscapes": {metric: percentage}}`` in the main process, empty in the others and without labels.

        Metrics as of :func:`.cityscapes_scoring.score_predictions`.

        Raises:
            ValueError: images of the data set have not been processed.
        """
        if self._distributed:
            comm.synchronize()
        if self._folder is None or not self._is_main():
            return OrderedDict()
        try:
            texts = {stem: text_file(self._folder, stem) for stem in self._records}
            _check_complete(texts, self._folder, self._dataset_name)
            if self._gt_dir is None:
                logger.info(f"Data set '{self._dataset_name}' has no labels. Predictions are in {self._folder}.")
                return OrderedDict()
            results = score_predictions(texts, self._gt_dir)
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
        self._report(results, self._gt_dir)
        return OrderedDict({_TASK: results})

    def _is_main(self) -> bool:
        return not self._distributed or comm.is_main_process()

    def _new_folder(self) -> Path:
        if self._output_dir is None:
            self._temporary = tempfile.TemporaryDirectory(prefix=f"{_PREDICTIONS}_")
            return Path(self._temporary.name)
        folder = Path(self._output_dir, _PREDICTIONS)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return folder

    def _report(self, results: dict[str, float], gt_dir: Path) -> None:
        table = tabulate(results.items(), headers=["metric", "percent"], tablefmt="pipe", floatfmt=".3f")
        logger.info(f"Evaluation results of '{self._dataset_name}' for {_TASK}:\n{table}")
        if not has_distances(gt_dir):
            logger.info("No AP100m and AP50m: there are no folders 'disparity' and 'camera' beside 'gtFine'.")
        if self._output_dir is not None:
            with open(os.path.join(self._output_dir, f"{_TASK}_results.json"), "w", encoding="utf-8") as file:
                json.dump({"dataset": self._dataset_name, _TASK: results}, file, indent=2)


def _check_complete(texts: Mapping[str, Path], folder: Path, dataset_name: str) -> None:
    missing = [stem for stem, path in texts.items() if not path.is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(texts)} images of data set '{dataset_name}' have no predictions in {folder}, "
            f"first: {missing[:5]}. Run the model on the whole data set; processes on several machines need an output "
            "folder that all of them can see."
        )
