"""Quality by what makes an image hard: how many objects it has, and how much they touch.

Shapes: `N` instances, `H, W` size of the image in pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..evaluation.counting_evaluator import true_masks
from ..evaluation.metrics import MATCH_THRESHOLD, Masks

# Objects touch where at most one pixel lies between them.
_REACH = np.ones((5, 5), np.uint8)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
LARGEST_NUMBER_OF_GROUPS = 4


def contact_shares(masks: Masks) -> NDArray[np.float64]:
    """Occlusion of every object: the share of its boundary at which it touches or overlaps another one.

    The boundary are its pixels with a neighbour (above, below, left, right) outside it; the image's border is none. It
    touches where a pixel of another object is at most 2 pixels away along both axes. An object that nothing touches
    has 0, one that is enclosed by others 1.

    Args:
        masks: bool [N, H, W], the truth.

    Returns:
        [N] in [0, 1].
    """
    cover = masks.sum(axis=0)
    shares = np.zeros(len(masks))
    for index, mask in enumerate(masks):
        inside = cv2.erode(mask.astype(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        boundary = mask & ~inside.astype(bool)
        others = cv2.dilate((cover - mask > 0).astype(np.uint8), _REACH).astype(bool)
        shares[index] = (boundary & others).sum() / max(boundary.sum(), 1)
    return shares


def split_evenly(values: Sequence[float], groups: int = LARGEST_NUMBER_OF_GROUPS) -> list[NDArray[np.intp]]:
    """Positions of ``values`` in at most so many groups of rising values, as equal in size as ties allow.

    Equal values are always in one group; no group is empty.
    """
    array = np.asarray(values, dtype=np.float64)
    edges = np.unique(np.quantile(array, np.linspace(0, 1, groups + 1)[1:-1])) if len(array) else array
    numbers = np.searchsorted(edges, array, side="left")
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def _label(values: NDArray[np.float64], template: str) -> str:
    low, high = (template.format(value) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _image_figures(images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    difference = np.array([image["pred_count"] - image["gt_count"] for image in images])
    return {
        "SBD": float(np.mean([image["sbd"] for image in images])),
        "abs_DiC": float(np.abs(difference).mean()),
        "count_accuracy": float((difference == 0).mean()),
    }


def _object_figures(best_iou: NDArray[np.float64]) -> dict[str, float]:
    return {"recall50": float((best_iou >= MATCH_THRESHOLD).mean()), "mean_IoU": float(best_iou.mean())}


def quality_by_group(records: Sequence[dict], images_of_models: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict:
    """Every model's quality in groups of images and of objects.

    Args:
        records: images of the data set.
        images_of_models: by name of the model, ``images`` of its results, in the same order.

    Returns:
        ``by_count`` and ``by_contact``: groups of images by number of true objects and by the mean of their contact
        shares; ``objects_by_contact``: groups of true objects by their own. Each group has ``label``, ``size`` and
        ``models``, from a model's name to its figures. Images without objects are in ``by_count`` alone.
    """
    contacts = [contact_shares(true_masks(record, iscrowd=0)) for record in records]
    counts = [float(len(shares)) for shares in contacts]
    filled = [index for index, shares in enumerate(contacts) if len(shares)]
    means = [float(contacts[index].mean()) for index in filled]
    objects = np.concatenate(contacts) if contacts else np.zeros(0)
    best = {name: np.concatenate([image["best_iou"] for image in im]) for name, im in images_of_models.items()}

    def group(values: Sequence[float], positions: NDArray[np.intp], template: str, figures: dict) -> dict:
        label = _label(np.asarray(values)[positions], template)
        return {"label": label, "size": len(positions), "models": figures}

    def of_images(values: Sequence[float], indices: Sequence[int], template: str) -> list[dict]:
        return [
            group(
                values,
                positions,
                template,
                {name: _image_figures([im[indices[p]] for p in positions]) for name, im in images_of_models.items()},
            )
            for positions in split_evenly(values)
        ]

    return {
        "by_count": of_images(counts, range(len(counts)), "{:.0f}"),
        "by_contact": of_images(means, filled, "{:.2f}"),
        "objects_by_contact": [
            group(objects.tolist(), p, "{:.2f}", {name: _object_figures(iou[p]) for name, iou in best.items()})
            for p in split_evenly(objects.tolist())
        ],
    }
