"""Losses of a glance: every place, box, patch and score is told what is still unclaimed.

Shapes: `B` images, `N` object slots, `P` places, `n` candidates or patches, `F` side of a patch.
"""

from dataclasses import dataclass

import torch
from fvcore.nn import giou_loss
from torch import Tensor
from torch.nn import functional as F

from ...layers.boxes import CenterBoxes
from ...layers.overlap import pairwise_box_iou
from ..steps import select
from .place_proposer import PlaceScan
from .targets import ObjectTargets

# A candidate whose box overlaps an unclaimed object's by at most this IoU has found no object.
MIN_BOX_IOU = 0.3
# Weights in the total; those of mask, box, softmax over places and score are 1. Chosen on nuclei (docs/ablation.md).
OBJECT_WEIGHT = 0.5
CLASS_WEIGHT = 0.5
# Weight of the L1 distance beside the generalised IoU.
L1_WEIGHT = 0.5
# Weight of a pixel of another object beside others in the mask loss, so that touching objects stay apart.
NEIGHBOR_WEIGHT = 3.0
_LOG_EPS = 1e-5


@dataclass
class PatchPairs:
    """Predicted patches beside the truth.

    Attributes:
        logits: [n, F, F].
        truth: [n, F, F] in [0, 1], the object's true mask cut out at the same box.
        neighbors: [n, F, F] in [0, 1], the other objects there.
    """

    logits: Tensor
    truth: Tensor
    neighbors: Tensor


def box_distance(predicted: CenterBoxes, truth: CenterBoxes) -> Tensor:
    """Generalised IoU loss plus a weighted L1 distance of boxes [n, 2], [n].

    The L1 distance is that of the centres relative to the true size, plus that of the log sizes, per axis.
    """
    size = truth.size.clamp(min=1)
    l1 = (predicted.center - truth.center).abs() / size + (predicted.size.clamp(min=1) / size).log().abs()
    return giou_loss(predicted.xyxy(), truth.xyxy()) + L1_WEIGHT * l1.mean(-1)


def _box_pairs(
    scan: PlaceScan, owners: Tensor, targets: ObjectTargets
) -> tuple[tuple[Tensor, Tensor], CenterBoxes, CenterBoxes]:
    """Places (image, place) [n] each of unclaimed objects, the boxes [n, 2] read there, and these objects' boxes."""
    image, place = owners.nonzero(as_tuple=True)
    where = (image, place)
    return where, select(scan.boxes, where), select(targets.boxes, (image, owners[image, place] - 1))


@torch.no_grad()
def box_quality(scan: PlaceScan, owners: Tensor, targets: ObjectTargets) -> Tensor:
    """[B, P], IoU of the box read at each place with that of the object it stands for; 0 where it stands for none.

    What places are taught to say: where two objects touch, the place whose box fits one of them goes first, not one
    between them whose box holds both (as the quality of Li et al., "Generalized Focal Loss", 2020).
    """
    where, predicted, truth = _box_pairs(scan, owners, targets)
    one_each = (CenterBoxes(boxes.center[:, None], boxes.size[:, None]) for boxes in (predicted, truth))
    quality = pairwise_box_iou(*one_each)[:, 0, 0]
    return torch.zeros(owners.shape, device=owners.device).index_put(where, quality.float())


def place_losses(scan: PlaceScan, owners: Tensor, quality: Tensor) -> dict[str, Tensor]:
    """Losses of the scored places.

    Args:
        scan: what they say.
        owners: [B, P], which unclaimed object they stand for, from 1 on; 0 = none.
        quality: [B, P] in [0, 1], of :func:`box_quality`.
    """
    logits, right = scan.logits.flatten(1), owners > 0
    anything = right.any(1)
    # Minus the log of the share of a softmax over all places that is at unclaimed objects.
    share = torch.logsumexp(logits.masked_fill(~right & anything[:, None], -torch.inf), 1) - torch.logsumexp(logits, 1)
    # Each place's own "is there an unclaimed object here, and does the box fit?", which unlike the softmax says so
    # absolutely.
    each = F.binary_cross_entropy_with_logits(logits, quality.to(logits), reduction="sum")
    return {
        "loss_place": -(share * anything).sum() / anything.sum().clamp(min=1),
        "loss_object": OBJECT_WEIGHT * each / right.sum().clamp(min=1),
    }


def box_loss(scan: PlaceScan, owners: Tensor, targets: ObjectTargets) -> Tensor:
    """Mean distance of the boxes read at places of unclaimed objects from these objects' boxes."""
    _, predicted, truth = _box_pairs(scan, owners, targets)
    return box_distance(predicted, truth).sum() / max(len(truth.center), 1)


def mask_loss(pairs: PatchPairs) -> Tensor:
    """Cross entropy of patch pixels, in which other objects weigh more, and one minus the soft Dice."""
    if len(pairs.logits) == 0:
        return pairs.logits.sum()
    weight = 1 + (NEIGHBOR_WEIGHT - 1) * pairs.neighbors
    entropy = F.binary_cross_entropy_with_logits(pairs.logits, pairs.truth, weight)
    predicted = torch.sigmoid(pairs.logits)
    overlap = 2 * (predicted * pairs.truth).sum((1, 2)) + 1
    return entropy + (1 - overlap / (predicted.sum((1, 2)) + pairs.truth.sum((1, 2)) + 1)).mean()


def score_loss(scores: Tensor, matched: Tensor) -> Tensor:
    """Cross entropy of the candidates' scores [n] with whether they found an object [n]."""
    with torch.autocast(scores.device.type, enabled=False):  # which forbids it in half precision
        return F.binary_cross_entropy(scores.float(), matched.float())


def class_loss(probabilities: Tensor, classes: Tensor) -> Tensor:
    """Mean cross entropy of probabilities [n, classes] with the true ones [n]."""
    likelihood = probabilities.gather(1, classes[:, None])[:, 0]
    return -CLASS_WEIGHT * torch.log(likelihood + _LOG_EPS).sum() / max(len(classes), 1)
