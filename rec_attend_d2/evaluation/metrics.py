"""Metrics of instance segmentation and counting on binary masks; pure functions, no I/O.

``P`` predicted and ``N`` true instances of one image, ``H, W`` its size in pixels. Masks are bool arrays [n, H, W];
n may be 0. The functions that take an overlap matrix put predicted instances on its rows and true ones on its columns.

What is undefined has one convention everywhere: a score of something empty against something empty is perfect (1), of
something empty against something that is not, worst (0). Coverage has no value for an image without true objects;
such an image is left out of its mean, and counts in every other mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

Masks = NDArray[np.bool_]
Matrix = NDArray[np.float64]

# A prediction is a detected object, or lies in a crowd region, from this overlap on (as COCO's AP50).
MATCH_THRESHOLD = 0.5
# Pixels per matrix product: bounds the memory, and keeps float32 sums of ones exact (they are below 2^24).
_CHUNK_PIXELS = 2**20


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image, as :func:`score_image` gives them; small enough to be sent between processes.

    Ratios lie in [0, 1]. ``mean_coverage`` and ``weighted_coverage`` are NaN if the image has no true object.
    """

    gt_count: int
    pred_count: int
    sbd: float
    fbd: float
    mean_coverage: float
    weighted_coverage: float
    false_positives: int
    false_negatives: int
    matches50: int
    pixel_precision: float
    pixel_recall: float


def pairwise_intersection(masks_a: Masks, masks_b: Masks) -> Matrix:
    """Number of pixels every mask of one set shares with every mask of the other.

    Args:
        masks_a: bool [A, H, W].
        masks_b: bool [B, H, W].

    Returns:
        float64 [A, B], whole numbers of pixels.

    Raises:
        ValueError: the arrays are not three-dimensional, or differ in H or W.
    """
    if masks_a.ndim != 3 or masks_b.ndim != 3 or masks_a.shape[1:] != masks_b.shape[1:]:
        raise ValueError(
            f"Masks must be [n, H, W] of the same H and W, got {masks_a.shape} and {masks_b.shape}. "
            "Resize the predictions to the original image size first."
        )
    pixels = masks_a.shape[1] * masks_a.shape[2]
    flat_a, flat_b = masks_a.reshape(len(masks_a), pixels), masks_b.reshape(len(masks_b), pixels)
    total = np.zeros((len(masks_a), len(masks_b)))
    for start in range(0, pixels, _CHUNK_PIXELS):
        chunk = slice(start, start + _CHUNK_PIXELS)
        total += flat_a[:, chunk].astype(np.float32) @ flat_b[:, chunk].astype(np.float32).T
    return total


def mask_areas(masks: Masks) -> Matrix:
    """Number of pixels of every mask: bool [n, H, W] -> float64 [n]."""
    return np.count_nonzero(masks, axis=(1, 2)).astype(np.float64)


def iou_matrix(intersection: Matrix, areas_a: Matrix, areas_b: Matrix) -> Matrix:
    """IoU from pairwise intersections [A, B] and areas [A], [B] in pixels; in [0, 1], 0 for two empty masks."""
    union = areas_a[:, None] + areas_b[None, :] - intersection
    return intersection / np.maximum(union, 1.0)


def dice_matrix(intersection: Matrix, areas_a: Matrix, areas_b: Matrix) -> Matrix:
    """Dice 2|a b| / (|a| + |b|) from pairwise intersections [A, B] and areas [A], [B]; 0 for two empty masks."""
    return 2.0 * intersection / np.maximum(areas_a[:, None] + areas_b[None, :], 1.0)


def pairwise_iou(masks_a: Masks, masks_b: Masks) -> Matrix:
    """IoU of every mask of bool [A, H, W] with every mask of bool [B, H, W]: float64 [A, B] in [0, 1]."""
    return iou_matrix(pairwise_intersection(masks_a, masks_b), mask_areas(masks_a), mask_areas(masks_b))


def pairwise_dice(masks_a: Masks, masks_b: Masks) -> Matrix:
    """Dice of every mask of bool [A, H, W] with every mask of bool [B, H, W]: float64 [A, B] in [0, 1]."""
    return dice_matrix(pairwise_intersection(masks_a, masks_b), mask_areas(masks_a), mask_areas(masks_b))


def symmetric_best_dice(dice: Matrix) -> float:
    """SBD of ``dice`` [P, N], in [0, 1]: the smaller one of the two best Dice scores (paper, section 4).

    Best Dice is the mean over the instances of one side of their largest Dice with any of the other side. 1 if there
    are neither predicted nor true instances, 0 if only one side has some.
    """
    if dice.size == 0:
        return float(dice.shape == (0, 0))
    return float(min(dice.max(axis=0).mean(), dice.max(axis=1).mean()))


def coverage(iou: Matrix, weights: Matrix) -> float:
    """Mean over true instances of the best IoU with any prediction, from ``iou`` [P, N] (paper, section 4).

    UCov of an image for equal ``weights`` [N], WCov for the true areas in pixels. 0 if nothing is predicted, NaN if
    there is no true instance.
    """
    if iou.shape[1] == 0:
        return float("nan")
    return float(np.average(iou.max(axis=0, initial=0.0), weights=weights))


def count_matches(iou: Matrix, threshold: float = MATCH_THRESHOLD) -> int:
    """Largest number of one-to-one pairs in ``iou`` [P, N] whose IoU is at least ``threshold``.

    Both sides may overlap among themselves, so a pair is not always unique; the maximum is, and it does not depend
    on the order or the scores of the predictions.
    """
    allowed = iou >= threshold
    return int(allowed[linear_sum_assignment(allowed, maximize=True)].sum())


def drop_empty(masks: Masks) -> Masks:
    """The masks of bool [n, H, W] that have a pixel."""
    return masks[masks.any(axis=(1, 2))]


def in_crowd(share_inside: Matrix, iou: Matrix) -> NDArray[np.bool_]:
    """Which predictions are neither right nor wrong because they lie in a crowd region.

    As in COCO's evaluation: more than half of the prediction is inside one crowd region, and it detects no true
    instance (IoU below 0.5 with each).

    Args:
        share_inside: [P, C] share of the prediction's area inside each of C crowd regions, in [0, 1].
        iou: [P, N] IoU with the true instances (crowd regions are not among them).

    Returns:
        bool [P].
    """
    inside = share_inside.max(axis=1, initial=0.0) > MATCH_THRESHOLD
    return inside & (iou.max(axis=1, initial=0.0) < MATCH_THRESHOLD)


def drop_crowd(pred_masks: Masks, gt_masks: Masks, crowd_masks: Masks) -> Masks:
    """The non-empty predictions that are to be scored, see :func:`in_crowd`; all arguments bool [., H, W]."""
    pred_masks = drop_empty(pred_masks)
    share_inside = pairwise_intersection(pred_masks, crowd_masks) / mask_areas(pred_masks)[:, None]
    return pred_masks[~in_crowd(share_inside, pairwise_iou(pred_masks, gt_masks))]


def score_image(pred_masks: Masks, gt_masks: Masks) -> ImageScores:
    """All scores of one image (paper, section 4).

    Instances without a pixel are not instances and are left out on both sides.

    Args:
        pred_masks: bool [P, H, W] at the original image size.
        gt_masks: bool [N, H, W], without crowd regions.

    Raises:
        ValueError: the arrays are not three-dimensional, or differ in H or W.
    """
    pred_masks, gt_masks = drop_empty(pred_masks), drop_empty(gt_masks)
    intersection = pairwise_intersection(pred_masks, gt_masks)
    pred_areas, gt_areas = mask_areas(pred_masks), mask_areas(gt_masks)
    iou = iou_matrix(intersection, pred_areas, gt_areas)
    pred_union, gt_union = (np.logical_or.reduce(masks, axis=0) for masks in (pred_masks, gt_masks))
    union_areas = np.count_nonzero(pred_union) + np.count_nonzero(gt_union)
    return ImageScores(
        gt_count=len(gt_masks),
        pred_count=len(pred_masks),
        sbd=symmetric_best_dice(dice_matrix(intersection, pred_areas, gt_areas)),
        fbd=2.0 * np.count_nonzero(pred_union & gt_union) / union_areas if union_areas else 1.0,
        mean_coverage=coverage(iou, np.ones(len(gt_masks))),
        weighted_coverage=coverage(iou, gt_areas),
        # Those that overlap nothing of the other side.
        false_positives=int(np.count_nonzero(iou.max(axis=1, initial=0.0) == 0)),
        false_negatives=int(np.count_nonzero(iou.max(axis=0, initial=0.0) == 0)),
        matches50=count_matches(iou),
        pixel_precision=_mean_share_inside(pred_masks, pred_areas, gt_union),
        pixel_recall=_mean_share_inside(gt_masks, gt_areas, pred_union),
    )


def _mean_share_inside(masks: Masks, areas: Matrix, union: NDArray[np.bool_]) -> float:
    """Mean over masks [A, H, W] of the share of the instance inside ``union`` [H, W] of the other side; in [0, 1].

    Without instances: 1 if the other side has none either, else 0.
    """
    if len(masks) == 0:
        return float(not union.any())
    return float(np.mean(pairwise_intersection(masks, union[None])[:, 0] / areas))


def summarize_counts(pred_counts: ArrayLike, gt_counts: ArrayLike) -> dict[str, float]:
    """Count metrics over images: DiC = predicted - true count, its absolute value, accuracy and squared error.

    Args:
        pred_counts: [I] number of predicted instances of each of I images.
        gt_counts: [I] number of true instances, in the same order.

    Returns:
        ``DiC``, ``abs_DiC`` with their standard deviations, ``count_accuracy`` in [0, 1], ``count_MSE``
        (paper, section 4).
    """
    difference = np.asarray(pred_counts, dtype=np.float64) - np.asarray(gt_counts, dtype=np.float64)
    return {
        "DiC": float(difference.mean()),
        "DiC_std": sample_std(difference),
        "abs_DiC": float(np.abs(difference).mean()),
        "abs_DiC_std": sample_std(np.abs(difference)),
        "count_accuracy": float((difference == 0).mean()),
        "count_MSE": float((difference**2).mean()),
    }


def sample_std(values: Matrix) -> float:
    """Standard deviation with N - 1 in the denominator of ``values`` [N]; 0 for a single value or none."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def pooled_ratio(numerator: float, denominator: float, other_side: float) -> float:
    """numerator / denominator; where the denominator is 0, 1 if ``other_side`` is 0 too, else 0.

    For shares of all instances of a data set: there may be none, and then it matters whether there should be.
    """
    return float(numerator / denominator) if denominator else float(other_side == 0)


def summarize(scores: Sequence[ImageScores]) -> dict[str, float]:
    """The metrics of a data set from the scores of its images (paper, section 4).

    * ``SBD``, ``FBD``, ``DiC``, ``abs_DiC``, ``count_accuracy``, ``count_MSE``, ``AvgFP``, ``AvgFN``: means over
      images.
    * ``MUCov``, ``MWCov``: means over the images with true objects.
    * ``precision50``, ``recall50``: matched pairs at IoU >= 0.5 of the whole data set, divided by its predicted / true
      instances. ``pixel_precision``, ``pixel_recall``: means over all its predicted / true instances.
    * ``*_std``: standard deviation over the same images, with N - 1.

    Raises:
        ValueError: ``scores`` is empty.
    """
    if not scores:
        raise ValueError("There is no image to summarize the scores of.")
    names = [field.name for field in fields(ImageScores)]
    column = {name: np.array([getattr(s, name) for s in scores], dtype=np.float64) for name in names}
    pred_total, gt_total = column["pred_count"].sum(), column["gt_count"].sum()
    covered = column["gt_count"] > 0
    over_images = {
        "SBD": column["sbd"],
        "FBD": column["fbd"],
        "MUCov": column["mean_coverage"][covered],
        "MWCov": column["weighted_coverage"][covered],
    }
    results: dict[str, float] = {}
    for name, values in over_images.items():
        results[name] = pooled_ratio(values.sum(), len(values), pred_total)
        results[f"{name}_std"] = sample_std(values)
    matches = column["matches50"].sum()
    pixels_right = (column["pixel_precision"] * column["pred_count"]).sum()
    pixels_found = (column["pixel_recall"] * column["gt_count"]).sum()
    return {
        **results,
        **summarize_counts(column["pred_count"], column["gt_count"]),
        "AvgFP": float(column["false_positives"].mean()),
        "AvgFN": float(column["false_negatives"].mean()),
        "precision50": pooled_ratio(matches, pred_total, gt_total),
        "recall50": pooled_ratio(matches, gt_total, pred_total),
        "pixel_precision": pooled_ratio(pixels_right, pred_total, gt_total),
        "pixel_recall": pooled_ratio(pixels_found, gt_total, pred_total),
        "num_images": float(len(scores)),
    }
