"""The attention window: from a proposal to filters, patches, masks and box maps (paper, section 3.2).

Shapes: `B` images, `T` steps, `C` channels, `H, W` network input, `F_h, F_w` patch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...layers.boxes import CenterBoxes
from ...layers.gaussian_attention import extract_patch, gaussian_filters, paste_ones, paste_patch, soft_mask
from ...registry import look_up
from .sequence import BoxProposal

# Log gains of extracting and pasting where they are not learned.
FIXED_PATCH_LOG_GAIN = 0.0
FIXED_MASK_LOG_GAIN = 2.0


def _variance_from_size(proposal: BoxProposal, patch_size: Tensor) -> Tensor:
    return torch.log(proposal.boxes.size) - torch.log(patch_size)


def _learned_variance(proposal: BoxProposal, patch_size: Tensor) -> Tensor:
    return proposal.learned_log_variance


def _unit_variance(proposal: BoxProposal, patch_size: Tensor) -> Tensor:
    return torch.zeros_like(proposal.log_size)


# Log variance [..., 2] of the filters, of a proposal and the patch size [2] in pixels.
FILTER_VARIANCES: dict[str, Callable[[BoxProposal, Tensor], Tensor]] = {
    "from_size": _variance_from_size,
    "learned": _learned_variance,
    "unit": _unit_variance,
}


@dataclass
class Window:
    """Filters at a box, with the gains to use them with.

    Attributes:
        filters_y: [B, H, F_h].
        filters_x: [B, W, F_w].
        patch_log_gain, mask_log_gain: [B].
    """

    filters_y: Tensor
    filters_x: Tensor
    patch_log_gain: Tensor
    mask_log_gain: Tensor


class GaussianAttention(nn.Module):
    """Differentiable windows made of Gaussian filters."""

    @configurable
    def __init__(self, *, patch_size: tuple[int, int], variance: str, learn_gains: bool):
        """
        Args:
            patch_size: (F_h, F_w), pixels.
            variance: name in FILTER_VARIANCES.
            learn_gains: take the gains from the proposal instead of fixing them.
        """
        super().__init__()
        self.patch_size = patch_size
        self.log_variance = look_up(FILTER_VARIANCES, variance, "MODEL.REC_ATTEND.ATTENTION.FILTER_VARIANCE")
        self.learn_gains = learn_gains
        self._patch_size: Tensor
        self.register_buffer("_patch_size", torch.tensor(patch_size, dtype=torch.float32), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.ATTENTION
        return {
            "patch_size": tuple(node.PATCH_SIZE),
            "variance": node.FILTER_VARIANCE,
            "learn_gains": node.LEARN_GAINS,
        }

    def _filters(self, boxes: CenterBoxes, log_variance: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        filters = [
            gaussian_filters(
                boxes.center[:, axis],
                boxes.size[:, axis],
                log_variance[:, axis],
                image_size[axis],
                self.patch_size[axis],
            )
            for axis in (0, 1)
        ]
        return filters[0], filters[1]

    def window(self, boxes: CenterBoxes, proposal: BoxProposal, image_size: tuple[int, int]) -> Window:
        """Filters at ``boxes`` [B, 2]; variance and gains are the proposal's, also for true boxes.

        Args:
            boxes: where to look, pixels.
            proposal: of the step.
            image_size: (H, W), pixels.
        """
        filters_y, filters_x = self._filters(boxes, self.log_variance(proposal, self._patch_size), image_size)
        patch_gain, mask_gain = proposal.learned_patch_log_gain, proposal.learned_mask_log_gain
        if not self.learn_gains:
            patch_gain = torch.full_like(patch_gain, FIXED_PATCH_LOG_GAIN)
            mask_gain = torch.full_like(mask_gain, FIXED_MASK_LOG_GAIN)
        return Window(filters_y, filters_x, patch_gain, mask_gain)

    def cut(self, maps: Sequence[Tensor], window: Window) -> Tensor:
        """Patch [B, C, F_h, F_w] of maps [B, C_i, H, W]."""
        gain = torch.exp(window.patch_log_gain)[:, None, None, None]
        patches = [gain * extract_patch(image, window.filters_y, window.filters_x) for image in maps]
        return patches[0] if len(patches) == 1 else torch.cat(patches, dim=1)

    def paste(self, patch_mask: Tensor, window: Window) -> Tensor:
        """Soft mask [B, H, W] in (0, 1) of a patch mask [B, F_h, F_w]."""
        return soft_mask(paste_patch(patch_mask, window.filters_y, window.filters_x), window.mask_log_gain)

    def box_maps(self, proposals: BoxProposal, image_size: tuple[int, int]) -> Tensor:
        """Soft boxes [B, T, H, W] in (0, 1) of proposals [B, T, ...]: a pasted patch of ones."""
        batch, steps = proposals.log_size.shape[:2]
        log_variance = self.log_variance(proposals, self._patch_size).flatten(0, 1)
        boxes = CenterBoxes(proposals.boxes.center.flatten(0, 1), proposals.boxes.size.flatten(0, 1))
        pasted = paste_ones(*self._filters(boxes, log_variance, image_size))
        return soft_mask(pasted, proposals.box_map_log_gain.flatten()).unflatten(0, (batch, steps))
