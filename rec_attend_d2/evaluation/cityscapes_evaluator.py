"""Cityscapes' instance scores, whatever version of Detectron2 is installed and without a GPU."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog

from ..data.cityscapes_scripts import cityscapes_module
from ..data.datasets.cityscapes import FINE
from .cityscapes_scoring import score_predictions
from .per_image_evaluator import PerImageEvaluator, Record, Results, checked_instances
from .submission_cityscapes import image_files, text_name

Files = dict[str, bytes]  # of an image: its text file and its masks by their names in a submission


class CityscapesEvaluator(PerImageEvaluator[Files]):
    """AP, AP50 and, with disparity and camera files, AP100m and AP50m by cityscapesscripts (results ``cityscapes``).

    Predictions are Instances at the image's original size with ``pred_masks``, ``scores`` and ``pred_classes``
    (0 to 7). They are kept in the test server's format and scored by the main process. With an output
    folder they are written to ``cityscapes_predictions`` in it, which is replaced; for a split without labels these
    files are all there is.
    """

    task = "cityscapes"
    needs_truth = False

    def __init__(self, dataset_name: str, output_dir: str | None = None, distributed: bool = True) -> None:
        """
        Args:
            dataset_name: of :func:`~rec_attend_d2.data.datasets.cityscapes.register_cityscapes`.
            output_dir: folder of the files; None: no files.
            distributed: score the predictions of all processes; false scores what this process made.

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
        self._gt_dir = metadata.gt_dir
        super().__init__(dataset_name, output_dir, distributed)

    def has_truth(self) -> bool:
        return self._gt_dir is not None

    def score(self, record: Record, output: Mapping[str, Any]) -> Files:
        return image_files(record["image_id"], checked_instances(record, output))

    def summarize(self, scores: Sequence[Files]) -> Results:
        with tempfile.TemporaryDirectory() as folder:
            _write_files(Path(folder), scores)
            texts = {stem: Path(folder, text_name(stem)) for stem in self._records}
            return {self.task: score_predictions(texts, Path(self._gt_dir))}

    def write(self, folder: Path, scores: Sequence[Files]) -> None:
        predictions = folder / "cityscapes_predictions"
        shutil.rmtree(predictions, ignore_errors=True)
        _write_files(predictions, scores)


def _write_files(folder: Path, images: Sequence[Files]) -> None:
    for files in images:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
