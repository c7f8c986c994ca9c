"""What a model finds in images, in COCO's results format, and how long it takes; every figure is computed from that.

Shapes: `P` predicted and `N` true instances of an image, `H, W` its size in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.data import build_detection_test_loader
from numpy.typing import NDArray
from pycocotools import mask as mask_util
from torch import nn

from ..benchmark.timing import stopwatch_for
from ..evaluation.coco_evaluator import CocoTruth, Detection

# The first image's time holds what happens once.
WARMUP_IMAGES = 1


@dataclass
class Predictions:
    """Of a list of images.

    Attributes:
        detections: COCO results of every image id, in the images' order.
        seconds: of every image, one at a time: network, post-processing and masks at the image's size.
    """

    detections: dict[Any, list[Detection]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def flat(self) -> list[Detection]:
        """All detections, as COCO's results file has them."""
        return [detection for detections in self.detections.values() for detection in detections]


def of_images(detections: Sequence[Detection], image_ids: Sequence[Any]) -> dict[Any, list[Detection]]:
    """Detections of a results file by image; those of an image without any are an empty list."""
    grouped: dict[Any, list[Detection]] = {image_id: [] for image_id in image_ids}
    for detection in detections:
        grouped[detection["image_id"]].append(detection)
    return grouped


@torch.no_grad()
def predict(model: nn.Module, records: Sequence[dict], mapper: Callable, truth: CocoTruth, device: str) -> Predictions:
    """Run a model on images, one at a time.

    Args:
        model: in evaluation mode.
        records: the images, dicts of Detectron2's standard format.
        mapper: makes the model's input of a record.
        truth: of the records' data set, for ids and classes.
        device: of the model.
    """
    stopwatch = stopwatch_for(device)
    predictions = Predictions()
    for number, batch in enumerate(build_detection_test_loader(list(records), mapper=mapper)):
        for _ in range(WARMUP_IMAGES if number == 0 else 0):
            model(batch)
        stopwatch.wait()
        start = stopwatch.mark()
        output = model(batch)[0]
        end = stopwatch.mark()
        stopwatch.wait()
        predictions.seconds.append(stopwatch.seconds(start, end))
        image_id = batch[0]["image_id"]
        if "instances" not in output or not output["instances"].has("pred_masks"):
            raise ValueError("The model finds no instance masks; only models that do can be compared.")
        predictions.detections[image_id] = truth.detections(image_id, output["instances"])
    return predictions


def predicted_masks(detections: Sequence[Detection], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks bool [P, H, W] of an image's detections."""
    masks = [mask_util.decode(detection["segmentation"]) for detection in detections]
    return np.array(masks, dtype=bool).reshape(-1, *size)


def scores_of(detections: Sequence[Detection]) -> NDArray[np.float64]:
    """Scores [P] of an image's detections, in [0, 1]."""
    return np.array([detection["score"] for detection in detections], dtype=np.float64)
