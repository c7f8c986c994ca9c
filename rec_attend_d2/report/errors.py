"""What goes wrong in a picture: which objects are missed, merged, split or invented.

Everything follows from the pixels that predicted and true objects share, so that it takes time for what meets alone.

Shapes: `P` predicted and `N` true objects of a picture.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..evaluation.metrics import iou_matrix, match_pairs, share_matrix
from ..structures import MaskCrops, intersections

# An object lies mostly inside another from above this share of its area on.
MOSTLY = 0.5
# From this IoU on two objects have to do with each other.
RELATED_IOU = 0.1
# A merged object covers so many true ones at least, and a split one holds so many predicted ones.
SEVERAL = 2

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class PictureErrors:
    """What became of the objects of one picture. An object may have several of these errors, or be found with one.

    Attributes:
        partner: [N], the predicted object that each true one is paired with, one to one at an IoU of at least 0.5;
            -1 = none: it is missed.
        merged: [P], predicted objects inside which at least two true ones mostly lie (more than half of each).
        within_merged: [N], true objects that mostly lie inside a merged one.
        split: [N], true objects inside which at least two predicted ones mostly lie.
        piece: [P], predicted objects that mostly lie inside a split one.
        invented: [P], predicted objects that have nothing to do with any true one: none has an IoU of at least 0.1
            with it, and neither lies mostly inside the other.
        overlooked: [N], true objects that have, in the same sense, nothing to do with any predicted one.
    """

    partner: NDArray[np.int64]
    merged: Flags
    within_merged: Flags
    split: Flags
    piece: Flags
    invented: Flags
    overlooked: Flags

    @property
    def found(self) -> Flags:
        """[N], which true objects are paired."""
        return self.partner >= 0

    @property
    def right(self) -> Flags:
        """[P], which predicted objects are paired."""
        right = np.zeros(len(self.merged), dtype=bool)
        right[self.partner[self.found]] = True
        return right


def find_errors(predicted: MaskCrops, true: MaskCrops) -> PictureErrors:
    """Compare the P predicted with the N true objects of a picture; none is empty, and crowds are left out."""
    shared = intersections(predicted, true)
    areas, true_areas = predicted.areas(), true.areas()
    iou = iou_matrix(shared, areas, true_areas)
    predicted_inside = share_matrix(shared, areas) > MOSTLY  # [P, N]
    true_inside = csr_array(share_matrix(csr_array(shared.T), true_areas).T) > MOSTLY
    related = predicted_inside + true_inside + (iou >= RELATED_IOU)
    merged = _per_row(true_inside) >= SEVERAL
    split = _per_column(predicted_inside) >= SEVERAL
    return PictureErrors(
        partner=match_pairs(iou),
        merged=merged,
        within_merged=_per_column(true_inside[merged]) > 0,
        split=split,
        piece=_per_row(csr_array(predicted_inside[:, split])) > 0,
        invented=_per_row(related) == 0,
        overlooked=_per_column(related) == 0,
    )


def _per_row(flags: csr_array) -> NDArray[np.int64]:
    return np.asarray(flags.sum(axis=1, dtype=np.int64)).ravel()


def _per_column(flags: csr_array) -> NDArray[np.int64]:
    return np.asarray(flags.sum(axis=0, dtype=np.int64)).ravel()
