"""Losses of single steps: each is told what is still unclaimed, instead of matching whole sequences.

Where next is a distribution over places and every unclaimed object is a right answer; the box is compared with the
unclaimed object it is closest to, the mask with the same object, and the score with whether there was one.

Shapes: `B` images, `T` steps, `N` instance slots, `P` places of the control CNN's map, `F_h, F_w` patch, `H, W` network
input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode, configurable
from fvcore.nn import giou_loss
from torch import Tensor
from torch.nn import functional as F

from ..layers.boxes import CenterBoxes
from ..layers.overlap import pairwise_box_iou
from ..registry import look_up, register_as
from .attention import Attention, Window
from .claims import unclaimed_instances
from .losses import class_loss
from .registries import SCORE_TRUTH_REGISTRY, STEP_MASK_LOSS_REGISTRY
from .step_types import Places, Proposal, select
from .targets import Targets

# A proposal whose box overlaps the nearest unclaimed object's less than this cuts out no object; no mask is judged.
MIN_BOX_IOU = 0.25
# Weight of the L1 distance beside the generalised IoU.
L1_WEIGHT = 0.5
# Weight of a pixel of another object beside others in patch_neighbor_bce.
NEIGHBOR_WEIGHT = 3.0


@dataclass
class PatchPairs:
    """Predicted patches beside the truth.

    Attributes:
        logits: [n, F_h, F_w], or a non-negative patch mask of a head that gives no logits.
        truth: [n, F_h, F_w] in [0, 1], the object's true mask cut out at the same box.
        neighbors: [n, F_h, F_w] in [0, 1], the other objects of the image likewise.
        window: where they were cut out.
        true_masks: [n, H, W] in {0, 1}.
        classes: [n], the true ones.
        class_probabilities: [n, classes] of a model that scores classes; else None.
        paste: puts patches [n, F_h, F_w] back, which only losses on the whole image need.
    """

    logits: Tensor
    truth: Tensor
    neighbors: Tensor
    window: Window
    true_masks: Tensor
    classes: Tensor
    class_probabilities: Tensor | None
    paste: Callable[[Tensor, Window], Tensor]

    @classmethod
    def of(
        cls,
        logits: Tensor,
        class_probabilities: Tensor | None,
        window: Window,
        instances: tuple[Tensor, Tensor],
        attention: Attention,
        targets: Targets,
    ) -> "PatchPairs":
        """Pairs of predictions with true instances.

        Args:
            logits: [n, F_h, F_w].
            class_probabilities: [n, classes] or None.
            window: where the patches were cut out.
            instances: images [n] of the batch and instances [n] of these.
            attention: cuts the true masks out.
            targets: the truth.
        """
        true_masks, classes = targets.masks[instances], targets.classes[instances]
        with torch.no_grad():
            others = (targets.masks.amax(1)[instances[0]] - true_masks).clamp(min=0)
            cut = attention.extract(torch.stack([true_masks, others], dim=1), window).clamp(0, 1)
        return cls(logits, cut[:, 0], cut[:, 1], window, true_masks, classes, class_probabilities, attention.paste)

    @property
    def masks(self) -> Tensor:
        """[n, H, W] in [0, 1], pasted."""
        return self.paste(self.logits, self.window)


@register_as(STEP_MASK_LOSS_REGISTRY, "patch_bce")
def patch_bce_loss(pairs: PatchPairs) -> Tensor:
    """Mean binary cross entropy of patch pixels."""
    return F.binary_cross_entropy_with_logits(pairs.logits, pairs.truth)


@register_as(STEP_MASK_LOSS_REGISTRY, "patch_neighbor_bce")
def patch_neighbor_bce_loss(pairs: PatchPairs) -> Tensor:
    """Binary cross entropy of patch pixels in which other objects weigh more, so that touching ones stay apart."""
    weight = 1 + (NEIGHBOR_WEIGHT - 1) * pairs.neighbors
    return F.binary_cross_entropy_with_logits(pairs.logits, pairs.truth, weight)


@register_as(STEP_MASK_LOSS_REGISTRY, "patch_dice")
def patch_dice_loss(pairs: PatchPairs) -> Tensor:
    """One minus the mean soft Dice of patches."""
    predicted = torch.sigmoid(pairs.logits)
    overlap = 2 * (predicted * pairs.truth).sum((1, 2)) + 1
    return (1 - overlap / (predicted.sum((1, 2)) + pairs.truth.sum((1, 2)) + 1)).mean()


@register_as(STEP_MASK_LOSS_REGISTRY, "image_iou")
def image_iou_loss(pairs: PatchPairs) -> Tensor:
    """One minus the mean soft IoU of masks on the whole image (paper, section 3.3)."""
    masks = pairs.masks
    both = (masks * pairs.true_masks).sum((1, 2))
    either = masks.sum((1, 2)) + pairs.true_masks.sum((1, 2)) - both
    return (1 - both / either.clamp(min=1)).mean()


def box_distance(predicted: CenterBoxes, truth: CenterBoxes) -> tuple[Tensor, Tensor]:
    """Generalised IoU loss and L1 distance of boxes [..., 2], both [...].

    The L1 distance is that of the centres relative to the true size, plus that of the log sizes, per axis.
    """
    giou = giou_loss(predicted.xyxy(), truth.xyxy())
    size = truth.size.clamp(min=1)
    l1 = (predicted.center - truth.center).abs() / size + (predicted.size.clamp(min=1) / size).log().abs()
    return giou, l1.mean(-1)


def take_boxes(boxes: CenterBoxes, index: Tensor) -> CenterBoxes:
    """Boxes [B, ..., 2] of the instances ``index`` [B, ...] among ``boxes`` [B, N, 2]."""
    rows = torch.arange(len(index), device=index.device).view(-1, *[1] * (index.ndim - 1))
    return CenterBoxes(boxes.center[rows, index], boxes.size[rows, index])


def place_owners(targets: Targets, map_size: tuple[int, int]) -> Tensor:
    """Which places stand for which object: those whose centre is a pixel of it, and the one its own centre lies in.

    Args:
        targets: the true instances.
        map_size: (h, w) of the control CNN's map.

    Returns:
        [B, N, P] bool.
    """
    axes, nearest = [], []
    for axis in (0, 1):
        length, cells = targets.masks.shape[2 + axis], map_size[axis]
        stride = length / cells
        axes.append(((torch.arange(cells, device=targets.masks.device) + 0.5) * stride).long())
        nearest.append(((targets.boxes.center[..., axis] + 0.5) / stride).long().clamp(0, cells - 1))
    inside = targets.masks[:, :, axes[0][:, None], axes[1]] > 0.5
    center = nearest[0] * map_size[1] + nearest[1]
    return inside.flatten(2).scatter(2, center[..., None], True) & targets.valid[..., None]


@dataclass
class StepTargets:
    """What every step should have done.

    Attributes:
        unclaimed: [B, T, N] bool, instances still to be found.
        anything: [B, T] bool, whether there is any.
        instance: [B, T], the unclaimed instance that the proposed box is closest to; arbitrary where there is none.
        hit: [B, T] bool, whether the box overlaps it enough to judge the mask.
        box_iou: [B, T], IoU of the proposed box with it.
    """

    unclaimed: Tensor
    anything: Tensor
    instance: Tensor
    hit: Tensor
    box_iou: Tensor


def assign_steps(sequence_boxes: CenterBoxes, claimed: Tensor, targets: Targets) -> StepTargets:
    """Give each step the unclaimed instance that its box is closest to.

    Args:
        sequence_boxes: proposed boxes [B, T, 2].
        claimed: [B, T, H, W], memory before the steps.
        targets: the true instances.
    """
    unclaimed = unclaimed_instances(claimed, targets)
    with torch.no_grad():
        shape = unclaimed.shape
        predicted = CenterBoxes(
            sequence_boxes.center[:, :, None].expand(*shape, 2), sequence_boxes.size[:, :, None].expand(*shape, 2)
        )
        truth = CenterBoxes(
            targets.boxes.center[:, None].expand(*shape, 2), targets.boxes.size[:, None].expand(*shape, 2)
        )
        giou, _ = box_distance(predicted, truth)
        instance = giou.masked_fill(~unclaimed, torch.inf).argmin(2)
        overlap = pairwise_box_iou(sequence_boxes, targets.boxes).gather(2, instance[..., None])[..., 0]
    anything = unclaimed.any(2)
    return StepTargets(unclaimed, anything, instance, anything & (overlap > MIN_BOX_IOU), overlap)


@register_as(SCORE_TRUTH_REGISTRY, "hit")
def _score_of_hit(steps: StepTargets) -> Tensor:
    """The step found an unclaimed object, which is what a matched step is in the paper."""
    return steps.hit


@register_as(SCORE_TRUTH_REGISTRY, "anything_left")
def _score_of_rest(steps: StepTargets) -> Tensor:
    """There was an unclaimed object, wherever the step looked."""
    return steps.anything


class StepCriterion:
    """Place, box, mask and score losses of single steps."""

    @configurable
    def __init__(
        self,
        *,
        mask_losses: Sequence[str],
        mask_weight: float,
        box_weight: float,
        place_weight: float,
        object_weight: float,
        score_weight: float,
        class_weight: float,
        score_truth: str,
    ):
        """
        Args:
            mask_losses: names in STEP_MASK_LOSS_REGISTRY, summed.
            mask_weight, box_weight, place_weight, object_weight, score_weight, class_weight: weights in the total.
            score_truth: name in SCORE_TRUTH_REGISTRY.
        """
        key = "MODEL.REC_ATTEND.LOSS.STEP_MASK"
        self.mask_losses = [look_up(STEP_MASK_LOSS_REGISTRY, name, key) for name in mask_losses]
        self.mask_weight = mask_weight
        self.box_weight = box_weight
        self.place_weight = place_weight
        self.object_weight = object_weight
        self.score_weight = score_weight
        self.class_weight = class_weight
        self.score_truth = look_up(SCORE_TRUTH_REGISTRY, score_truth, "MODEL.REC_ATTEND.LOSS.SCORE_TRUTH")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.LOSS
        return {
            "mask_losses": node.STEP_MASK,
            "mask_weight": node.MASK_WEIGHT,
            "box_weight": node.BOX_WEIGHT,
            "place_weight": node.PLACE_WEIGHT,
            "object_weight": node.OBJECT_WEIGHT,
            "score_weight": node.SCORE_WEIGHT,
            "class_weight": node.CLASS_WEIGHT,
            "score_truth": node.SCORE_TRUTH,
        }

    def _place_losses(self, places: Places, right: Tensor) -> dict[str, Tensor]:
        """Losses of the scored places, where ``right`` [B, T, P] are those of unclaimed objects."""
        logits = places.logits.flatten(2)
        anything = right.any(2)
        log_share = F.log_softmax(logits, dim=2).masked_fill(~right, -torch.inf)
        missed = -torch.where(anything, torch.logsumexp(torch.where(anything[..., None], log_share, 0), 2), 0)
        # Each place's own "is there an unclaimed object here?", which unlike the softmax says so absolutely.
        each = F.binary_cross_entropy_with_logits(logits, right.to(logits), reduction="sum")
        return {
            "loss_place": self.place_weight * missed.sum() / anything.sum().clamp(min=1),
            "loss_object": self.object_weight * each / right.sum().clamp(min=1),
        }

    def _dense_box_loss(self, boxes: CenterBoxes, owners: Tensor, targets: Targets) -> Tensor:
        """Box loss of the boxes [B, T, P, 2] read at the places ``owners`` [B, T, N, P] of unclaimed objects."""
        # Of two objects the later one, which is smaller and has fewer places.
        order = torch.arange(1, owners.shape[2] + 1, device=owners.device)[:, None]
        truth = take_boxes(targets.boxes, (owners * order).argmax(2))
        # Boxes are picked first: most places stand for no object.
        right = owners.any(2)
        return self._box_loss(select(boxes, right), select(truth, right))

    def _box_loss(self, predicted: CenterBoxes, truth: CenterBoxes) -> Tensor:
        giou, l1 = box_distance(predicted, truth)
        return self.box_weight * (giou + L1_WEIGHT * l1).sum() / max(len(giou), 1)

    def proposal_losses(self, proposals: Proposal, steps: StepTargets, targets: Targets) -> dict[str, Tensor]:
        """Losses of the places and boxes of proposals [B, T, ...]."""
        places, losses = proposals.places, {}
        if places is not None:
            height, width = places.logits.shape[2:]
            owners = place_owners(targets, (height, width))[:, None] & steps.unclaimed[..., None]
            losses = self._place_losses(places, owners.any(2))
            if places.boxes is not None:
                losses["loss_box"] = self._dense_box_loss(places.boxes, owners, targets)
                return losses
        truth, found = take_boxes(targets.boxes, steps.instance), steps.anything
        losses["loss_box"] = self._box_loss(select(proposals.boxes, found), select(truth, found))
        return losses

    def score_loss(self, scores: Tensor, steps: StepTargets) -> Tensor:
        """Cross entropy of the scores [B, T] with their truth."""
        return self.score_weight * F.binary_cross_entropy(scores, self.score_truth(steps).to(scores))

    def class_losses(self, pairs: PatchPairs) -> dict[str, Tensor]:
        """Cross entropy of the pairs' classes; empty without class scores."""
        if pairs.class_probabilities is None:
            return {}
        total = class_loss(pairs.class_probabilities, pairs.classes).sum()
        return {"loss_class": self.class_weight * total / max(len(pairs.classes), 1)}

    def mask_loss(self, pairs: PatchPairs) -> Tensor:
        """Sum of the mask losses; 0 (with a gradient) where there is no pair."""
        if len(pairs.logits) == 0:
            return pairs.logits.sum()
        total = torch.stack([loss(pairs) for loss in self.mask_losses]).sum()
        return self.mask_weight * total
