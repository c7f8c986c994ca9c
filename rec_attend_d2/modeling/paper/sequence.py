"""What the paper's proposer gives out, and all steps of a batch in one container.

Shapes: `B` images, `T` steps, `H, W` network input, `K` glimpses, `h, w` the control CNN's map. A step looks at one box
per image, in the order of the images.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..steps import Proposal, Scan, Step


@dataclass
class GlimpseScan(Scan):
    """Where the glimpses went.

    Attributes:
        glimpse_maps: [B, K, h, w], each of which sums to 1.
    """

    glimpse_maps: Tensor

    def heat(self) -> Tensor:
        """The last glimpse on a log scale: 0 where it is not above uniform, 1 where all of it is on one place."""
        last = self.glimpse_maps[:, -1]
        places = last.shape[1] * last.shape[2]
        return torch.log((last * places).clamp(min=1)) / math.log(max(places, 2))


@dataclass
class BoxProposal(Proposal):
    """A proposed box per image and how to look at it. Shapes for one step; a sequence has [B, T, ...].

    Attributes:
        center_normalized: [B, 2], centre in [-1, 1] (not clipped).
        log_size: [B, 2], log of the size relative to the image.
        learned_log_variance: [B, 2], the filters' log variance if it is learned.
        learned_patch_log_gain, learned_mask_log_gain: [B], log gains of extracting and pasting if they are learned.
        box_map_log_gain: [B], log gain of the box map.
    """

    center_normalized: Tensor
    log_size: Tensor
    learned_log_variance: Tensor
    learned_patch_log_gain: Tensor
    learned_mask_log_gain: Tensor
    box_map_log_gain: Tensor


@dataclass
class StepSequence:
    """All T steps, which are matched with the true objects as a whole.

    Attributes:
        steps: every tensor has the steps as its second axis, [B, T, ...].
        box_maps: [B, T, H, W], the proposed boxes as soft maps in (0, 1).
    """

    steps: Step
    box_maps: Tensor

    @property
    def masks(self) -> Tensor:
        """[B, T, H, W] in (0, 1), not multiplied by the score; in stage B the box maps."""
        assert self.steps.cut.mask is not None
        return self.steps.cut.mask
