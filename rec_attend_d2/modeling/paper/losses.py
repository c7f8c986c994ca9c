"""Loss functions (paper, section 3.3). Those of masks and boxes are chosen by MODEL.REC_ATTEND.LOSS.

Shapes: `B` images, `T` steps, `N` instance slots, `H, W` network input.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.overlap import pairwise_box_iou, pairwise_soft_iou
from .sequence import BoxProposal, StepSequence
from .targets import Targets

LOG_EPS = 1e-5


@dataclass
class Comparison:
    """Predictions beside the truth, matched.

    Attributes:
        pred_maps: [B, T, H, W] in [0, 1], soft masks or box maps.
        gt_maps: [B, N, H, W] in {0, 1}.
        overlap: [B, T, N], IoU of every pair.
        match: [B, T, N], 1 for matched pairs.
        sequence: all predictions.
        targets: all truths.
    """

    pred_maps: Tensor
    gt_maps: Tensor
    overlap: Tensor
    match: Tensor
    sequence: StepSequence
    targets: Targets


def matched_mean(values: Tensor, match: Tensor) -> Tensor:
    """Mean of ``values`` [B, T, N] over an image's matched pairs, then over images; images without a pair count 0."""
    pairs = match.sum((1, 2)).clamp(min=1)
    # Not a product: the value of a pair that is not matched may be infinite.
    return (torch.where(match > 0, values, 0).sum((1, 2)) / pairs).mean()


def weighted_coverage(overlap: Tensor, gt_maps: Tensor) -> Tensor:
    """Mean over images of the area-weighted best overlap of every true instance.

    Args:
        overlap: [B, T, N].
        gt_maps: [B, N, H, W] in {0, 1}.
    """
    areas = gt_maps.flatten(2).sum(2)
    weights = areas / areas.sum(1, keepdim=True).clamp(min=1)
    return (overlap.amax(1) * weights).sum(1).mean()


def iou_loss(comparison: Comparison) -> Tensor:
    """Minus the mean IoU of matched pairs."""
    return -matched_mean(comparison.overlap, comparison.match)


def bce_loss(comparison: Comparison) -> Tensor:
    """Mean over pixels of the binary cross entropy of matched pairs."""
    pred, gt = comparison.pred_maps.flatten(2), comparison.gt_maps.flatten(2).transpose(1, 2)
    log_inside, log_outside = torch.log(pred + LOG_EPS), torch.log(1 - pred + LOG_EPS)
    # Cross entropy of every pair as one matrix product; sum(q * (1 - y)) = sum(q) - sum(q * y).
    log_likelihood = torch.bmm(log_inside - log_outside, gt) + log_outside.sum(2, keepdim=True)
    return matched_mean(-log_likelihood / pred.shape[2], comparison.match)


def weighted_coverage_loss(comparison: Comparison) -> Tensor:
    """Minus the weighted coverage; it needs no matching."""
    return -weighted_coverage(comparison.overlap, comparison.gt_maps)


def _box_parameters(comparison: Comparison) -> tuple[Tensor, Tensor]:
    """Normalised centre and log relative size of every pair, predicted and true, [B, T, N, 4] each.

    True boxes count as at least a pixel large, so that the logarithm is finite.
    """
    proposals, boxes = comparison.sequence.steps.proposal, comparison.targets.boxes
    sides = boxes.size.new_tensor(comparison.gt_maps.shape[2:])
    pred = torch.cat([proposals.center_normalized, proposals.log_size], dim=-1)
    gt = torch.cat([boxes.center / sides * 2 - 1, torch.log(boxes.size.clamp(min=1.0) / sides)], dim=-1)
    return torch.broadcast_tensors(pred[:, :, None], gt[:, None])


def box_mse_loss(comparison: Comparison) -> Tensor:
    """Mean squared error of normalised centre and log relative size, of matched pairs."""
    pred, gt = _box_parameters(comparison)
    return matched_mean(F.mse_loss(pred, gt, reduction="none").mean(-1), comparison.match)


def box_huber_loss(comparison: Comparison) -> Tensor:
    """Huber loss (threshold 1) of normalised centre and log relative size, of matched pairs."""
    pred, gt = _box_parameters(comparison)
    return matched_mean(F.huber_loss(pred, gt, reduction="none").mean(-1), comparison.match)


# Losses of a comparison, by the value of LOSS.MASK and LOSS.BOX.
Loss = Callable[[Comparison], Tensor]
MASK_LOSSES: dict[str, Loss] = {"iou": iou_loss, "bce": bce_loss, "weighted_coverage": weighted_coverage_loss}
BOX_LOSSES: dict[str, Loss] = {**MASK_LOSSES, "mse": box_mse_loss, "huber": box_huber_loss}


def box_map_overlap(proposals: BoxProposal, box_maps: Tensor, targets: Targets) -> Tensor:
    """Soft IoU [B, T, N] of predicted box maps [B, T, H, W] and padded true boxes."""
    return pairwise_soft_iou(box_maps, targets.box_maps)


def box_corner_overlap(proposals: BoxProposal, box_maps: Tensor, targets: Targets) -> Tensor:
    """IoU [B, T, N] of the corners of proposals [B, T, ...] and padded true boxes.

    Empty slots are not masked: the matchers ignore them, and the original's choice of truth does not.
    """
    return pairwise_box_iou(proposals.boxes, targets.boxes)


# Overlap [B, T, N] of proposals, their box maps and the truth, by the value of LOSS.BOX_OVERLAP.
BoxOverlap = Callable[[BoxProposal, Tensor, Targets], Tensor]
BOX_OVERLAPS: dict[str, BoxOverlap] = {"maps": box_map_overlap, "corners": box_corner_overlap}


def score_loss(scores: Tensor, matched: Tensor) -> Tensor:
    """Loss of the stop scores: matched steps high, the others low, and once low never high again.

    ``-s* log(min_{t' <= t} s_t') - (1 - s*) log(1 - max_{t' >= t} s_t')``, mean over images and steps.

    Args:
        scores: [B, T] in (0, 1).
        matched: [B, T] in {0, 1}, s*.
    """
    lowest_so_far = scores.cummin(dim=1).values
    highest_to_come = scores.flip(1).cummax(dim=1).values.flip(1)
    log_yes = torch.log(lowest_so_far + LOG_EPS)
    log_no = torch.log(1 - highest_to_come + LOG_EPS)
    return -(matched * log_yes + (1 - matched) * log_no).mean()


def weight_decay_loss(module: nn.Module, factor: float) -> Tensor:
    """``factor * 0.5 * sum(w^2)`` over the matrices of conv and linear layers (LSTM included), without biases.

    Frozen layers have no part in it.
    """
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = [layer for layer in module.modules() if isinstance(layer, kinds) and layer.weight.requires_grad]
    squares = [layer.weight.square().sum() for layer in layers]
    return factor * 0.5 * torch.stack(squares or [torch.zeros(())]).sum()
