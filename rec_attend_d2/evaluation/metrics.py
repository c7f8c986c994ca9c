"""Metrics of instance segmentation and counting on binary masks; pure functions, no I/O.

``P`` predicted and ``N`` true instances of one image, ``H, W`` its size in pixels. Masks are MaskCrops, or bool arrays
or tensors [n, H, W], which become MaskCrops first; n may be 0. The functions that take an overlap matrix put predicted
instances on its rows and true ones on its columns. It is dense, or SciPy's sparse without the zeros: of thousands of
objects each meets a few.

What is undefined has one convention everywhere: a score of something empty against something empty is perfect (1), of
something empty against something that is not, worst (0). Coverage has no value for an image without true objects;
such an image is left out of its mean, and counts in every other mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from ..structures import AnyMasks, MaskCrops, as_crops, intersections

Matrix = NDArray[np.float64]
AnyMatrix: TypeAlias = Matrix | csr_array

# A prediction is a detected object, or lies in a crowd region, from this overlap on (as COCO's AP50).
MATCH_THRESHOLD = 0.5


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


def pairwise_intersection(masks_a: AnyMasks, masks_b: AnyMasks) -> Matrix:
    """Number of pixels every mask of one set shares with every mask of the other.

    Args:
        masks_a: A masks.
        masks_b: B masks.

    Returns:
        float64 [A, B], whole numbers of pixels.

    Raises:
        ValueError: the masks are not three-dimensional, or differ in H or W.
    """
    return intersections(as_crops(masks_a), as_crops(masks_b)).toarray().astype(np.float64)


def iou_matrix(intersection: csr_array, areas_a: NDArray, areas_b: NDArray) -> csr_array:
    """IoU in (0, 1] from pairwise intersections [A, B] and areas [A], [B] in pixels; 0 stays 0."""
    shared = intersection.tocoo()
    return _at(shared, shared.data / (areas_a[shared.row] + areas_b[shared.col] - shared.data))


def dice_matrix(intersection: csr_array, areas_a: NDArray, areas_b: NDArray) -> csr_array:
    """Dice 2|a b| / (|a| + |b|) from pairwise intersections [A, B] and areas [A], [B]; 0 stays 0."""
    shared = intersection.tocoo()
    return _at(shared, 2.0 * shared.data / (areas_a[shared.row] + areas_b[shared.col]))


def share_matrix(intersection: csr_array, areas: NDArray) -> csr_array:
    """Shares in (0, 1] of the areas [A] in pixels, from pairwise intersections [A, B]; 0 stays 0."""
    shared = intersection.tocoo()
    return _at(shared, shared.data / areas[shared.row])


def _at(entries: coo_array, values: Matrix) -> csr_array:
    """A matrix with ``values`` in place of those of ``entries``."""
    return csr_array((values, (entries.row, entries.col)), shape=entries.shape)


def pairwise_iou(masks_a: AnyMasks, masks_b: AnyMasks) -> Matrix:
    """IoU of each of A masks with each of B: float64 [A, B] in [0, 1], 0 for two empty masks."""
    a, b = as_crops(masks_a), as_crops(masks_b)
    return iou_matrix(intersections(a, b), a.areas(), b.areas()).toarray()


def pairwise_dice(masks_a: AnyMasks, masks_b: AnyMasks) -> Matrix:
    """Dice of each of A masks with each of B: float64 [A, B] in [0, 1], 0 for two empty masks."""
    a, b = as_crops(masks_a), as_crops(masks_b)
    return dice_matrix(intersections(a, b), a.areas(), b.areas()).toarray()


def largest(matrix: AnyMatrix, axis: int) -> Matrix:
    """The largest value (>= 0) of each row (axis 1) or column (axis 0) of a matrix; 0 where there is none."""
    entries = coo_array(matrix)
    values = np.zeros(matrix.shape[1 - axis])
    np.maximum.at(values, entries.col if axis == 0 else entries.row, entries.data)
    return values


def symmetric_best_dice(dice: AnyMatrix) -> float:
    """SBD of ``dice`` [P, N], in [0, 1]: the smaller one of the two best Dice scores (paper, section 4).

    Best Dice is the mean over the instances of one side of their largest Dice with any of the other side. 1 if there
    are neither predicted nor true instances, 0 if only one side has some.
    """
    if 0 in dice.shape:
        return float(dice.shape == (0, 0))
    return float(min(largest(dice, axis=0).mean(), largest(dice, axis=1).mean()))


def coverage(iou: AnyMatrix, weights: NDArray) -> float:
    """Mean over true instances of the best IoU with any prediction, from ``iou`` [P, N] (paper, section 4).

    UCov of an image for equal ``weights`` [N], WCov for the true areas in pixels. 0 if nothing is predicted, NaN if
    there is no true instance.
    """
    if iou.shape[1] == 0:
        return float("nan")
    return float(np.average(largest(iou, axis=0), weights=weights))


def match_pairs(iou: AnyMatrix, threshold: float = MATCH_THRESHOLD) -> NDArray[np.int64]:
    """The most one-to-one pairs in ``iou`` [P, N] whose IoU is at least ``threshold`` (> 0).

    Both sides may overlap among themselves, so a pair is not always unique; the number of pairs is, and it does not
    depend on the order or the scores of the predictions.

    Returns:
        [N], the number of the prediction that each true instance is paired with; -1 = none.
    """
    if 0 in iou.shape:
        return np.full(iou.shape[1], -1)
    allowed = csr_array(iou)
    allowed.data = allowed.data >= threshold
    allowed.eliminate_zeros()
    return maximum_bipartite_matching(allowed).astype(np.int64)


def count_matches(iou: AnyMatrix, threshold: float = MATCH_THRESHOLD) -> int:
    """Number of the pairs of :func:`match_pairs`."""
    return int(np.count_nonzero(match_pairs(iou, threshold) >= 0))


def drop_empty(masks: AnyMasks) -> MaskCrops:
    """The masks that have a pixel."""
    crops = as_crops(masks)
    return crops[crops.areas() > 0]


def in_crowd(share_inside: AnyMatrix, iou: AnyMatrix) -> NDArray[np.bool_]:
    """Which predictions are neither right nor wrong because they lie in a crowd region.

    As in COCO's evaluation: more than half of the prediction is inside one crowd region, and it detects no true
    instance (IoU below 0.5 with each).

    Args:
        share_inside: [P, C] share of the prediction's area inside each of C crowd regions, in [0, 1].
        iou: [P, N] IoU with the true instances (crowd regions are not among them).

    Returns:
        bool [P].
    """
    return (largest(share_inside, axis=1) > MATCH_THRESHOLD) & (largest(iou, axis=1) < MATCH_THRESHOLD)


def to_be_scored(pred_masks: AnyMasks, gt_masks: AnyMasks, crowd_masks: AnyMasks) -> NDArray[np.bool_]:
    """[P], which predictions count: not empty, and see :func:`in_crowd`; all masks are of images of one size."""
    pred, gt, crowd = as_crops(pred_masks), as_crops(gt_masks), as_crops(crowd_masks)
    areas = pred.areas()
    filled = areas > 0
    if not len(crowd):
        return filled
    iou = iou_matrix(intersections(pred, gt), areas, gt.areas())
    return filled & ~in_crowd(share_matrix(intersections(pred, crowd), areas), iou)


def drop_crowd(pred_masks: AnyMasks, gt_masks: AnyMasks, crowd_masks: AnyMasks) -> MaskCrops:
    """The predictions that count, see :func:`to_be_scored`."""
    pred = as_crops(pred_masks)
    return pred[to_be_scored(pred, gt_masks, crowd_masks)]


def score_image(pred_masks: AnyMasks, gt_masks: AnyMasks) -> ImageScores:
    """All scores of one image (paper, section 4).

    Instances without a pixel are not instances and are left out on both sides.

    Args:
        pred_masks: P masks at the original image size.
        gt_masks: N masks, without crowd regions.

    Raises:
        ValueError: the masks are not three-dimensional, or differ in H or W.
    """
    pred, gt = drop_empty(pred_masks), drop_empty(gt_masks)
    intersection = intersections(pred, gt)
    pred_areas, gt_areas = pred.areas(), gt.areas()
    iou = iou_matrix(intersection, pred_areas, gt_areas)
    pred_union, gt_union = pred.union(), gt.union()
    union_areas = np.count_nonzero(pred_union) + np.count_nonzero(gt_union)
    return ImageScores(
        gt_count=len(gt),
        pred_count=len(pred),
        sbd=symmetric_best_dice(dice_matrix(intersection, pred_areas, gt_areas)),
        fbd=2.0 * np.count_nonzero(pred_union & gt_union) / union_areas if union_areas else 1.0,
        mean_coverage=coverage(iou, np.ones(len(gt))),
        weighted_coverage=coverage(iou, gt_areas),
        # Those that overlap nothing of the other side.
        false_positives=int(np.count_nonzero(largest(iou, axis=1) == 0)),
        false_negatives=int(np.count_nonzero(largest(iou, axis=0) == 0)),
        matches50=count_matches(iou),
        pixel_precision=_mean_share_inside(pred, pred_areas, gt_union),
        pixel_recall=_mean_share_inside(gt, gt_areas, pred_union),
    )


def _mean_share_inside(masks: MaskCrops, areas: NDArray[np.int64], union: NDArray[np.bool_]) -> float:
    """Mean over masks of the share of the instance inside ``union`` [H, W] of the other side; in [0, 1].

    Without instances: 1 if the other side has none either, else 0.
    """
    if len(masks) == 0:
        return float(not union.any())
    return float(np.mean(masks.areas_inside(union) / areas))


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


def pooled_figures(predicted: int, true: int, matches: int, wrong: int) -> dict[str, float]:
    """Figures of the objects of several images together.

    Args:
        predicted: number of predicted objects.
        true: number of true objects.
        matches: pairs of both at an IoU of at least 0.5.
        wrong: sum over the images of the absolute differences of both numbers.

    Returns:
        ``relative_count_error``: ``wrong`` / ``true``, NaN without true objects. ``F1``: harmonic mean of the shares of
        predicted and of true objects that are matched, 1 where there are neither.
    """
    return {
        "relative_count_error": wrong / true if true else float("nan"),
        "F1": pooled_ratio(2 * matches, predicted + true, 0),
    }


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
