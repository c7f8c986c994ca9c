"""How good stage A's foreground and angle maps are (paper, section 3.1, A).

Shapes: `h, w` original image size in pixels; `K` foreground channels; `A` angle bins; `L` labels: background and object
for K = 1, otherwise the K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from numpy.typing import NDArray

from ..data.instances import build_targets
from ..data.map_targets import MapTargetGenerator
from ..data.segmentation import annotation_mask
from .per_image_evaluator import PerImageEvaluator, Record, Results

BACKGROUND = "background"
_FOREGROUND_THRESHOLD = 0.5


@dataclass(frozen=True)
class MapCounts:
    """Pixels of one image.

    Attributes:
        confusion: int64 [L, L], pixels of each true label (rows) and predicted label (columns).
        angles: pixels of instances whose true angle is known.
        right_angles: those of them whose most probable angle bin is right.
    """

    confusion: NDArray[np.int64]
    angles: int
    right_angles: int


class ForegroundEvaluator(PerImageEvaluator[MapCounts]):
    """Compares ``sem_seg`` and ``angle_map`` with maps made of the data set's annotations, at the original size.

    The true maps are those that stage A learns from: crowd regions belong to the foreground and have no angle; pixels
    of a ``void`` region do not count, nor do those of an ``unscored`` one (learned as background, but left out of the
    field's scores, as Cityscapes does); images outlined ``coarse`` have no angles. The IoU of Cityscapes' classes is
    that of cityscapesscripts. Only numbers of pixels are kept and sent between processes, never maps. Results, all in
    [0, 1], under the key ``foreground``:

    * ``IoU``: of the foreground (K = 1, probability above 0.5), over all pixels of the data set.
    * ``IoU-<class>`` and their mean ``mIoU`` (K > 1, most probable class), the background among the classes. A class
      that has no pixel on either side is NaN and does not enter the mean.
    * ``angle_accuracy`` (A > 0): share of the instances' pixels whose most probable angle bin is right; where instances
      overlap, the bin of any of them is.
    """

    task = "foreground"

    def __init__(
        self,
        dataset_name: str,
        foreground_classes: int,
        angle_bins: int,
        output_dir: str | None = None,
        distributed: bool = True,
    ) -> None:
        """
        Args:
            dataset_name: a name of Detectron2's DatasetCatalog.
            foreground_classes: K.
            angle_bins: A; 0 = the model has no angle map.
            output_dir: folder ``foreground_results.json`` is written to; None: no file.
            distributed: gather the counts of all processes.

        Raises:
            ValueError: K fits neither a foreground nor the data set's classes.
        """
        super().__init__(dataset_name, output_dir, distributed)
        self._channels = {"sem_seg": foreground_classes, "angle_map": angle_bins}
        self._truth = MapTargetGenerator(foreground_classes, angle_bins, coarse_weight=1.0)
        self._class_names = _class_names(dataset_name, foreground_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str, output_dir: str) -> "ForegroundEvaluator":
        node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
        return cls(dataset_name, node.FOREGROUND_CLASSES, node.ANGLE_BINS, output_dir)

    def score(self, record: Record, output: Mapping[str, Any]) -> MapCounts:
        """Count an image's pixels.

        Args:
            record: of the data set.
            output: ``sem_seg`` [K, h, w] and, for A > 0, ``angle_map`` [A, h, w], probabilities.

        Raises:
            ValueError: a map is missing or of another shape.
        """
        size = (record["height"], record["width"])
        for key, channels in self._channels.items():
            found = tuple(output[key].shape) if key in output else None
            if channels and found != (channels, *size):
                raise ValueError(
                    f"The model's output for '{record['file_name']}' has a '{key}' of shape {found}, but the data set "
                    f"and MODEL.REC_ATTEND.PREPROCESSOR need {(channels, *size)} (channels, height and width of the "
                    "image)."
                )
        unmoved = T.NoOpTransform()
        targets = build_targets(record["annotations"], size, unmoved, size, record["file_name"])
        maps = {key: value.numpy() for key, value in self._truth(record, targets, size, unmoved).items()}
        known = maps["foreground_weight"] > 0
        if "unscored" in record:
            where = f"{record['file_name']}: unscored"
            known &= ~annotation_mask({"segmentation": record["unscored"]}, size, where)
        # A single map has two labels too.
        count = max(2, self._channels["sem_seg"])
        pairs = hard_labels(maps["foreground"])[known] * count + hard_labels(output["sem_seg"].cpu().numpy())[known]
        confusion = np.bincount(pairs, minlength=count**2).reshape(count, count)
        if not self._channels["angle_map"]:
            return MapCounts(confusion, 0, 0)
        predicted = output["angle_map"].argmax(0).cpu().numpy()
        with_angle = known & maps["angle_map"].any(axis=0)
        right = np.take_along_axis(maps["angle_map"], predicted[None], axis=0)[0] > 0
        return MapCounts(confusion, int(with_angle.sum()), int((right & with_angle).sum()))

    def summarize(self, scores: Sequence[MapCounts]) -> Results:
        confusion = np.sum([image.confusion for image in scores], axis=0)
        both = confusion.diagonal()
        either = confusion.sum(0) + confusion.sum(1) - both
        iou = [float(b / e) if e else float("nan") for b, e in zip(both, either, strict=True)]
        results = {"IoU": iou[1]}
        if self._class_names:
            results = {"mIoU": float(np.nanmean(iou))}
            results.update({f"IoU-{name}": value for name, value in zip(self._class_names, iou, strict=True)})
        if self._channels["angle_map"]:
            angles, right = (sum(getattr(image, key) for image in scores) for key in ("angles", "right_angles"))
            results["angle_accuracy"] = right / angles if angles else float("nan")
        return {"foreground": results}


def hard_labels(maps: NDArray) -> NDArray[np.int64]:
    """Labels [h, w] of probabilities or one-hot ``maps`` [K, h, w]: foreground above 0.5, or the largest class."""
    return (maps[0] > _FOREGROUND_THRESHOLD if len(maps) == 1 else maps.argmax(0)).astype(np.int64)


def _class_names(dataset_name: str, foreground_classes: int) -> list[str]:
    """Names of the K classes, none for K = 1; a ValueError if the data set has another number of them."""
    if foreground_classes == 1:
        return []
    things = MetadataCatalog.get(dataset_name).get("thing_classes") or []
    if len(things) + 1 != foreground_classes:
        raise ValueError(
            f"MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES is {foreground_classes}, but data set '{dataset_name}' "
            f"has {len(things)} classes ({', '.join(things)}). Set it to 1, or to their number + 1 for the background."
        )
    return [BACKGROUND, *things]
