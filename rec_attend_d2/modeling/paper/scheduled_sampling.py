"""Scheduled sampling: how often a step is fed the truth instead of its own prediction (paper, section 3.3).

Shapes: `B` images, `N` instance slots, `H, W` network input.
"""

import math
from collections.abc import Callable

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from ...layers.boxes import CenterBoxes, padded_boxes
from ...registry import look_up
from ..steps import Feeder, StepInputs, Where, stack_steps
from .attention import GaussianAttention
from .losses import BOX_OVERLAPS
from .sequence import BoxProposal
from .targets import Targets


def sampling_probability(
    iteration: int, step: int, decay_steps: float, offset: float, scale_with_step: bool = True
) -> float:
    """Probability of feeding the truth, in [0, 1].

    ``min(1, 0.5^(max(0, iteration - offset) / decay_steps) * (1 + log(1 + 3 * step)))``

    Args:
        iteration: training iteration n.
        step: time step t, counted from 0.
        decay_steps: iterations in which the probability halves.
        offset: iteration at which it starts to fall.
        scale_with_step: without it the last factor is 1.
    """
    factor = 1 + math.log(1 + 3 * step) if scale_with_step else 1.0
    return min(1.0, 0.5 ** (max(0.0, iteration - offset) / decay_steps) * factor)


def _choose_unclaimed(overlap: Tensor, taken: Tensor, valid: Tensor) -> Tensor:
    """The best overlapping instance that no earlier step has taken; the largest where none overlaps."""
    candidates = valid & (taken < 0.5)
    best = overlap.masked_fill(~candidates, -1.0).argmax(1, keepdim=True)
    return torch.zeros_like(overlap).scatter(1, best, 1.0) * candidates.any(1, keepdim=True)


def _choose_any(overlap: Tensor, taken: Tensor, valid: Tensor) -> Tensor:
    """The best overlapping slot, taken or not; equals share. Without any overlap that is the mean of all slots."""
    best = (overlap == overlap.amax(1, keepdim=True)).to(overlap)
    return best / best.sum(1, keepdim=True)


# Share of every slot [B, N] in a step's truth, of box overlaps [B, N], what was taken [B, N] in [0, 1] and what is
# valid [B, N] bool; by the value of TRUTH_CHOICE.
TruthChoice = Callable[[Tensor, Tensor, Tensor], Tensor]
TRUTH_CHOICES: dict[str, TruthChoice] = {"unclaimed": _choose_unclaimed, "any": _choose_any}


class SampledTruth(Feeder):
    """Feeds the truth to some images at some steps. Lives for one batch."""

    def __init__(self, sampling: "ScheduledSampling", targets: Targets, attention: GaussianAttention):
        self._sampling = sampling
        self._targets = targets
        self._attention = attention
        self._noisy_boxes = sampling.noisy_boxes(targets)
        self._taken = torch.zeros_like(targets.valid, dtype=targets.masks.dtype)
        self._choice = self._taken

    def _choose(self, proposal: BoxProposal) -> Tensor:
        """Share of every true instance in this step's truth, [B, N]."""
        with torch.no_grad():
            proposals = stack_steps([proposal])
            box_maps = self._attention.box_maps(proposals, self._targets.image_size)
            overlap = self._sampling.overlap(proposals, box_maps, self._targets)[:, 0]
            return self._sampling.choose(overlap, self._taken, self._targets.valid)

    def where(self, proposal: BoxProposal, inputs: StepInputs) -> Where:
        """Noisy true boxes where the truth is used, else the proposed ones."""
        self._choice = self._choose(proposal)
        self._taken = torch.maximum(self._taken, self._choice)
        use = self._use_truth(self._sampling.box_probability(inputs.number))[:, None]
        true_center = torch.einsum("bn,bna->ba", self._choice, self._noisy_boxes.center)
        true_size = torch.einsum("bn,bna->ba", self._choice, self._noisy_boxes.size)
        own = proposal.boxes
        boxes = CenterBoxes(torch.where(use, true_center, own.center), torch.where(use, true_size, own.size))
        return Where(proposal.image, boxes)

    def claimed(self, mask: Tensor, inputs: StepInputs) -> Tensor:
        """The noisy true mask where the truth is used, else the predicted one."""
        use = self._use_truth(self._sampling.mask_probability(inputs.number))[:, None, None]
        truth = torch.einsum("bn,bnhw->bhw", self._choice, self._targets.masks)
        return torch.where(use, self._sampling.noisy_mask(truth), mask)

    def _use_truth(self, probability: float) -> Tensor:
        """[B] bool; never where there is no truth left to feed."""
        drawn = torch.rand(len(self._choice), device=self._choice.device) < probability
        return drawn & (self._choice.sum(1) > 0)


class ScheduledSampling:
    """The schedule, the noise and the choice of truth. ``iteration`` is set by the trainer's hook."""

    @configurable
    def __init__(
        self,
        *,
        enabled: bool,
        decay_steps: float,
        box_offset: float,
        mask_offset: float,
        scale_with_step: bool,
        truth_choice: str,
        box_overlap: str,
        center_noise: float,
        padding_noise: float,
        mask_noise: float,
    ):
        """
        Args:
            enabled: without it training always goes on with the model's own predictions.
            decay_steps, scale_with_step: see :func:`sampling_probability`.
            box_offset, mask_offset: its offset, in iterations.
            truth_choice: name in TRUTH_CHOICES.
            box_overlap: name in BOX_OVERLAPS.
            center_noise: true centres move by up to this share of the size.
            padding_noise: the padding ratio changes by up to this.
            mask_noise: true masks are multiplied by 1 - U(0, mask_noise), pixel by pixel.
        """
        key = "MODEL.REC_ATTEND.SCHEDULED_SAMPLING"
        self.enabled = enabled
        self.decay_steps = decay_steps
        self.box_offset = box_offset
        self.mask_offset = mask_offset
        self.scale_with_step = scale_with_step
        self.choose = look_up(TRUTH_CHOICES, truth_choice, f"{key}.TRUTH_CHOICE")
        self.overlap = look_up(BOX_OVERLAPS, box_overlap, "MODEL.REC_ATTEND.LOSS.BOX_OVERLAP")
        self.center_noise = center_noise
        self.padding_noise = padding_noise
        self.mask_noise = mask_noise
        self.iteration = 0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.SCHEDULED_SAMPLING
        if node.DECAY_STEPS <= 0:
            raise ValueError(
                f"MODEL.REC_ATTEND.SCHEDULED_SAMPLING.DECAY_STEPS is {node.DECAY_STEPS}; give more than 0 iterations."
            )
        return {
            "enabled": node.ENABLED,
            "decay_steps": node.DECAY_STEPS,
            "box_offset": node.BOX_OFFSET,
            "mask_offset": node.MASK_OFFSET,
            "scale_with_step": node.SCALE_WITH_STEP,
            "truth_choice": node.TRUTH_CHOICE,
            "box_overlap": cfg.MODEL.REC_ATTEND.LOSS.BOX_OVERLAP,
            "center_noise": node.CENTER_NOISE,
            "padding_noise": node.PADDING_NOISE,
            "mask_noise": node.MASK_NOISE,
        }

    def box_probability(self, step: int) -> float:
        """Probability of a true box at time step ``step``."""
        return self._probability(step, self.box_offset)

    def mask_probability(self, step: int) -> float:
        """Probability of a true mask in memory at time step ``step``."""
        return self._probability(step, self.mask_offset)

    def _probability(self, step: int, offset: float) -> float:
        if not self.enabled:
            return 0.0
        return sampling_probability(self.iteration, step, self.decay_steps, offset, self.scale_with_step)

    def noisy_boxes(self, targets: Targets) -> CenterBoxes:
        """Padded true boxes [B, N, 2] with noise on padding and centre."""
        ratio = targets.padding_ratio + self.padding_noise * _symmetric_noise(targets.boxes.size[..., :1])
        boxes = padded_boxes(targets.masks, ratio, targets.padding_pixels)
        return CenterBoxes(boxes.center + self.center_noise * _symmetric_noise(boxes.size) * boxes.size, boxes.size)

    def noisy_mask(self, mask: Tensor) -> Tensor:
        """``mask`` [B, H, W] times ``1 - U(0, mask_noise)``."""
        return mask * (1 - self.mask_noise * torch.rand_like(mask))

    def start(self, targets: Targets, attention: GaussianAttention) -> Feeder:
        """The feeder of one training batch."""
        return SampledTruth(self, targets, attention) if self.enabled else Feeder()


class TrueMemory(ScheduledSampling):
    """Stage B's schedule: the memory always takes the true mask, the boxes are always the proposed ones."""

    def start(self, targets: Targets, attention: GaussianAttention) -> Feeder:
        """The feeder of one batch, whether or not scheduled sampling is enabled for stage C."""
        return SampledTruth(self, targets, attention)

    def box_probability(self, step: int) -> float:
        """0"""
        return 0.0

    def mask_probability(self, step: int) -> float:
        """1"""
        return 1.0


def _symmetric_noise(like: Tensor) -> Tensor:
    return torch.rand_like(like) * 2 - 1
