"""The attention window: from a proposal to filters, patches, masks and box maps (paper, section 3.2).

Shapes: `B` images, `T` steps, `C` channels, `H, W` network input, `F_h, F_w` patch; `h, w` a map of a
fraction of the image's size.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.bilinear_attention import pasting_filters, sampling_filters
from ..layers.boxes import CenterBoxes, rasterize_boxes
from ..layers.gaussian_attention import extract_patch, gaussian_filters, paste_ones, paste_patch, soft_mask
from ..registry import look_up, register_as
from .inputs import StepInputs
from .registries import ATTENTION_REGISTRY, FILTER_VARIANCE_REGISTRY, SAMPLING_REGISTRY
from .step_types import Proposal

_KEY = "MODEL.REC_ATTEND.ATTENTION"

# Log gains of extracting and pasting where they are not learned.
FIXED_PATCH_LOG_GAIN = 0.0
FIXED_MASK_LOG_GAIN = 2.0


@register_as(FILTER_VARIANCE_REGISTRY, "from_size")
def _variance_from_size(proposal: Proposal, patch_size: Tensor) -> Tensor:
    return torch.log(proposal.boxes.size) - torch.log(patch_size)


@register_as(FILTER_VARIANCE_REGISTRY, "learned")
def _learned_variance(proposal: Proposal, patch_size: Tensor) -> Tensor:
    return proposal.learned_log_variance


@register_as(FILTER_VARIANCE_REGISTRY, "unit")
def _unit_variance(proposal: Proposal, patch_size: Tensor) -> Tensor:
    return torch.zeros_like(proposal.log_size)


def build_attention(cfg: CfgNode) -> "Attention":
    """The part named by MODEL.REC_ATTEND.ATTENTION.NAME."""
    return look_up(ATTENTION_REGISTRY, cfg.MODEL.REC_ATTEND.ATTENTION.NAME, f"{_KEY}.NAME")(cfg)


def on_smaller_map(filters: Tensor, length: int) -> Tensor:
    """Filters [B, L, F] of the image's axis as [B, ``length``, F] for a map of ``length`` cells.

    Extracting with them is extracting from the map enlarged to the image's size by bilinear interpolation.
    """
    cells = torch.eye(length, dtype=filters.dtype, device=filters.device)
    enlarged = F.interpolate(cells[None], size=filters.shape[1], mode="linear", align_corners=False)[0]
    return torch.matmul(enlarged, filters)


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

    def on_map(self, height: int, width: int) -> "Window":
        """The same window on a smaller map of the image, [h, w]; it can only extract."""
        return dataclasses.replace(
            self,
            filters_y=on_smaller_map(self.filters_y, height),
            filters_x=on_smaller_map(self.filters_x, width),
        )


@dataclass
class BilinearWindow(Window):
    """Sampling filters at a box, and those that put a patch back.

    Attributes:
        paste_y: [B, H, F_h]; rows outside the box are 0.
        paste_x: [B, W, F_w].
    """

    paste_y: Tensor
    paste_x: Tensor


class Attention(nn.Module, ABC):
    """Cuts patches out at boxes and pastes masks back.

    Attributes:
        takes_logits: whether it pastes logits, or masks >= 0.
    """

    takes_logits: bool

    @abstractmethod
    def window(self, boxes: CenterBoxes, proposal: Proposal, image_size: tuple[int, int]) -> Any:
        """What :meth:`extract` and :meth:`paste` need to know of ``boxes`` [B, 2]: a :class:`Window`.

        Args:
            boxes: where to look, pixels.
            proposal: the filters' variance and gains may be its.
            image_size: (H, W), pixels.
        """

    @abstractmethod
    def extract(self, image: Tensor, window: Any) -> Tensor:
        """Patch [B, C, F_h, F_w] of ``image`` [B, C, H, W], or of a smaller map with the window on that map."""

    @abstractmethod
    def paste(self, patch_mask: Tensor, window: Any) -> Tensor:
        """Soft mask [B, H, W] in [0, 1] of a patch mask [B, F_h, F_w]."""

    @abstractmethod
    def box_maps(self, proposals: Proposal, image_size: tuple[int, int]) -> Tensor:
        """Boxes [B, T, H, W] in [0, 1] of proposals [B, T, ...] in images of size ``image_size`` (H, W)."""

    def cut(self, inputs: StepInputs, names: Sequence[str], window: Any) -> Tensor:
        """Patch [B, C, F_h, F_w] of all the maps ``names``; features count as enlarged to the image's size."""
        patches = [self.extract(image, window) for image in inputs.maps(names)]
        if "features" in names:
            features = inputs.extra.features[0]
            patches.append(self.extract(features, window.on_map(*features.shape[2:])))
        return patches[0] if len(patches) == 1 else torch.cat(patches, dim=1)


@ATTENTION_REGISTRY.register()
class GaussianAttention(Attention):
    """Differentiable windows made of Gaussian filters."""

    # A patch mask is >= 0 and pasted with a gain and a bias; see BilinearAttention.
    takes_logits = False

    @configurable
    def __init__(self, *, patch_size: tuple[int, int], variance: str, learn_gains: bool):
        """
        Args:
            patch_size: (F_h, F_w), pixels.
            variance: name in FILTER_VARIANCE_REGISTRY.
            learn_gains: take the gains from the proposal instead of fixing them.
        """
        super().__init__()
        self.patch_size = patch_size
        self.log_variance = look_up(FILTER_VARIANCE_REGISTRY, variance, "MODEL.REC_ATTEND.ATTENTION.FILTER_VARIANCE")
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

    def window(self, boxes: CenterBoxes, proposal: Proposal, image_size: tuple[int, int]) -> Window:
        """Filters at ``boxes`` [B, 2]; variance and gains are the proposal's, also for true boxes."""
        filters_y, filters_x = self._filters(boxes, self.log_variance(proposal, self._patch_size), image_size)
        patch_gain, mask_gain = proposal.learned_patch_log_gain, proposal.learned_mask_log_gain
        if not self.learn_gains:
            patch_gain = torch.full_like(patch_gain, FIXED_PATCH_LOG_GAIN)
            mask_gain = torch.full_like(mask_gain, FIXED_MASK_LOG_GAIN)
        return Window(filters_y, filters_x, patch_gain, mask_gain)

    def extract(self, image: Tensor, window: Window) -> Tensor:
        """Patch [B, C, F_h, F_w] of ``image`` [B, C, H, W]."""
        patch = extract_patch(image, window.filters_y, window.filters_x)
        return torch.exp(window.patch_log_gain)[:, None, None, None] * patch

    def paste(self, patch_mask: Tensor, window: Window) -> Tensor:
        """Soft mask [B, H, W] in (0, 1) of a patch mask [B, F_h, F_w]."""
        return soft_mask(paste_patch(patch_mask, window.filters_y, window.filters_x), window.mask_log_gain)

    def box_maps(self, proposals: Proposal, image_size: tuple[int, int]) -> Tensor:
        """Soft boxes [B, T, H, W] in (0, 1) of proposals [B, T, ...]: a pasted patch of ones."""
        batch, steps = proposals.log_size.shape[:2]
        log_variance = self.log_variance(proposals, self._patch_size).flatten(0, 1)
        boxes = CenterBoxes(proposals.boxes.center.flatten(0, 1), proposals.boxes.size.flatten(0, 1))
        pasted = paste_ones(*self._filters(boxes, log_variance, image_size))
        return soft_mask(pasted, proposals.box_map_log_gain.flatten()).unflatten(0, (batch, steps))


@register_as(SAMPLING_REGISTRY, "bilinear")
def _bilinear_sampling(center: Tensor, size: Tensor, length: int, patch_length: int) -> Tensor:
    return sampling_filters(center, size, length, patch_length)


@register_as(SAMPLING_REGISTRY, "gaussian")
def _gaussian_sampling(center: Tensor, size: Tensor, length: int, patch_length: int) -> Tensor:
    return gaussian_filters(center, size, torch.log(size / patch_length), length, patch_length)


@ATTENTION_REGISTRY.register()
class BilinearAttention(Attention):
    """Windows that take logits back as they are: sharp, and without a floor outside the box.

    The Gaussian window's masks cannot fall below sigmoid(-5), which keeps the soft IoU of an object of a hundred
    pixels in a large image near 0.25.
    """

    takes_logits = True

    @configurable
    def __init__(self, *, patch_size: tuple[int, int], sampling: str):
        """
        Args:
            patch_size: (F_h, F_w), pixels.
            sampling: name in SAMPLING_REGISTRY.
        """
        super().__init__()
        self.patch_size = patch_size
        self.sampling = look_up(SAMPLING_REGISTRY, sampling, f"{_KEY}.SAMPLING")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.ATTENTION
        if node.LEARN_GAINS:
            raise ValueError(f"{_KEY}.NAME 'BilinearAttention' has no gains: set {_KEY}.LEARN_GAINS to False.")
        return {
            "patch_size": tuple(node.PATCH_SIZE),
            "sampling": node.SAMPLING,
        }

    def window(self, boxes: CenterBoxes, proposal: Proposal, image_size: tuple[int, int]) -> BilinearWindow:
        """Filters at ``boxes`` [B, 2], which count as at least a pixel large."""
        size = boxes.size.clamp(min=1.0)
        axes = [(boxes.center[:, axis], size[:, axis], image_size[axis], self.patch_size[axis]) for axis in (0, 1)]
        sampled, pasted = [self.sampling(*axis) for axis in axes], [pasting_filters(*axis) for axis in axes]
        zeros = torch.zeros_like(size[:, 0])
        return BilinearWindow(sampled[0], sampled[1], zeros, zeros, pasted[0], pasted[1])

    def extract(self, image: Tensor, window: Window) -> Tensor:
        """Patch [B, C, F_h, F_w] of ``image`` [B, C, H, W] (or of a smaller map, with a window on that map)."""
        return extract_patch(image, window.filters_y, window.filters_x)

    def paste(self, patch_logits: Tensor, window: BilinearWindow) -> Tensor:
        """Soft mask [B, H, W] in [0, 1] of logits [B, F_h, F_w]; 0 outside the box."""
        inside = paste_ones(window.paste_y, window.paste_x)
        return torch.sigmoid(paste_patch(patch_logits, window.paste_y, window.paste_x)) * inside

    def box_maps(self, proposals: Proposal, image_size: tuple[int, int]) -> Tensor:
        """Boxes [B, T, H, W] in {0, 1} of proposals [B, T, ...]; no gradient."""
        boxes = CenterBoxes(proposals.boxes.center.detach(), proposals.boxes.size.detach())
        return rasterize_boxes(boxes, *image_size)
