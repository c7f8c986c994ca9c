"""Quality by what makes an image hard: how many objects it has, how large they are, and how much they touch.

Shapes: `N` instances, `H, W` size of the image in pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..evaluation.counting_evaluator import true_masks
from ..evaluation.metrics import MATCH_THRESHOLD, pooled_figures
from ..report.selection import group_label, split_evenly
from ..structures import AnyMasks, as_crops

# Objects touch where at most one pixel lies between them.
_DISTANCE = 2
_REACH = np.ones((2 * _DISTANCE + 1, 2 * _DISTANCE + 1), np.uint8)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def contact_shares(masks: AnyMasks) -> NDArray[np.float64]:
    """Occlusion of every object: the share of its boundary at which it touches or overlaps another one.

    The boundary are its pixels with a neighbour (above, below, left, right) outside it; the image's border is none. It
    touches where a pixel of another object is at most 2 pixels away along both axes. An object that nothing touches
    has 0, one that is enclosed by others 1.

    Args:
        masks: N masks, the truth.

    Returns:
        [N] in [0, 1].
    """
    objects = as_crops(masks)
    height, width = objects.image_size
    cover = np.zeros((height, width), np.int32)
    for crop, window in zip(objects.crops, objects.windows, strict=True):
        cover[window] += crop
    shares = np.zeros(len(objects))
    for index, (crop, (rows, columns)) in enumerate(zip(objects.crops, objects.windows, strict=True)):
        # The object's surroundings as far as it can touch something, cut off at the image's border.
        top, left = max(0, rows.start - _DISTANCE), max(0, columns.start - _DISTANCE)
        around = cover[top : rows.stop + _DISTANCE, left : columns.stop + _DISTANCE]
        mask = np.zeros(around.shape, bool)
        mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = crop
        inside = cv2.erode(mask.astype(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        boundary = mask & ~inside.astype(bool)
        others = cv2.dilate((around - mask > 0).astype(np.uint8), _REACH).astype(bool)
        shares[index] = (boundary & others).sum() / max(boundary.sum(), 1)
    return shares


def _image_figures(images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    predicted, true, matches = (
        np.array([image[key] for image in images]) for key in ("pred_count", "gt_count", "matches50")
    )
    difference = predicted - true
    return {
        "SBD": float(np.mean([image["sbd"] for image in images])),
        "abs_DiC": float(np.abs(difference).mean()),
        "count_accuracy": float((difference == 0).mean()),
        **pooled_figures(*map(int, (predicted.sum(), true.sum(), matches.sum(), np.abs(difference).sum()))),
    }


def _object_figures(best_iou: Sequence[float]) -> dict[str, float]:
    found = np.array(best_iou) >= MATCH_THRESHOLD
    return {"recall50": float(found.mean()), "mean_IoU": float(np.mean(best_iou))}


def _groups(
    values: Sequence[float], template: str, members: Mapping[str, Sequence], figures: Callable[[Sequence], dict]
) -> list[dict]:
    """Groups of rising ``values``, labelled by ``template``, with every model's ``figures`` of its ``members``."""
    array = np.asarray(values, dtype=np.float64)
    return [
        {
            "label": group_label(array[positions], template),
            "size": len(positions),
            "models": {name: figures([of_model[p] for p in positions]) for name, of_model in members.items()},
        }
        for positions in split_evenly(array)
    ]


def quality_by_group(records: Sequence[dict], images: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict:
    """Every model's quality in groups of images and of objects.

    Args:
        records: images of the data set.
        images: by name of the model, ``images`` of its results, in the same order.

    Returns:
        ``by_count`` and ``by_contact``: groups of images by number of true objects and by the mean of their contact
        shares; ``objects_by_contact`` and ``objects_by_area``: groups of true objects by their own share and by their
        pixels. Each group has ``label``, ``size`` and ``models``, from a model's name to its figures. Images without
        objects are in ``by_count`` alone.
    """
    contacts: list[NDArray] = []
    areas: list[int] = []
    for record in records:
        masks = true_masks(record, iscrowd=0)
        contacts.append(contact_shares(masks))
        areas.extend(masks.areas())
    filled = [index for index, shares in enumerate(contacts) if len(shares)]
    with_objects = {name: [of_model[index] for index in filled] for name, of_model in images.items()}
    objects = {name: [iou for image in of_model for iou in image["best_iou"]] for name, of_model in images.items()}
    means = [float(contacts[index].mean()) for index in filled]
    return {
        "by_count": _groups([len(shares) for shares in contacts], "{:.0f}", images, _image_figures),
        "by_contact": _groups(means, "{:.2f}", with_objects, _image_figures),
        "objects_by_contact": _groups([s for shares in contacts for s in shares], "{:.2f}", objects, _object_figures),
        "objects_by_area": _groups(areas, "{:.0f}", objects, _object_figures),
    }
