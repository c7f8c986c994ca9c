"""Boxes of masks, their padding and noise, and the one converter to Detectron2's XYXY.

Shapes: `B` images, `N` instances or steps, `H, W` network input.
A box here is centre and size, each [..., 2], (y, x) in pixels of the network input.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class CenterBoxes:
    """Boxes as centre and size.

    Attributes:
        center: [..., 2], (y, x), pixels.
        size: [..., 2], (height, width), pixels.
    """

    center: Tensor
    size: Tensor

    @property
    def top_left(self) -> Tensor:
        """[..., 2], (y, x), pixels."""
        return self.center - self.size / 2

    @property
    def bottom_right(self) -> Tensor:
        """[..., 2], (y, x), pixels."""
        return self.center + self.size / 2

    def xyxy(self) -> Tensor:
        """The boxes as Detectron2 wants them: [..., 4], (x0, y0, x1, y1), absolute pixels, not clipped."""
        return torch.cat([self.top_left.flip(-1), self.bottom_right.flip(-1)], dim=-1)


def scale_axes(values: Tensor, factors: tuple[float, float]) -> Tensor:
    """``values`` [..., 2] times a number per axis; without a tensor of the numbers, which would go to the device."""
    return torch.stack([values[..., 0] * factors[0], values[..., 1] * factors[1]], dim=-1)


def tight_extent(masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First and last foreground index per axis, both inclusive.

    Args:
        masks: [B, N, H, W], foreground where > 0.5.

    Returns:
        ``(first, last, empty)``: [B, N, 2] (y, x) pixels, float (as the masks, if they are), [B, N, 2], and [B, N]
        bool, true for masks without a pixel (whose first and last are 0).
    """
    foreground = masks > 0.5
    extents = []
    for reduced_axis in (3, 2):
        occupied = foreground.any(dim=reduced_axis)
        length = occupied.shape[-1]
        first = occupied.to(torch.uint8).argmax(-1)
        last = length - 1 - occupied.flip(-1).to(torch.uint8).argmax(-1)
        extents.append((first, last, ~occupied.any(-1)))
    empty = extents[0][2]
    first = torch.stack([extents[0][0], extents[1][0]], dim=-1)
    last = torch.stack([extents[0][1], extents[1][1]], dim=-1)
    keep = (~empty)[..., None]
    dtype = masks.dtype if masks.is_floating_point() else torch.get_default_dtype()
    return (first * keep).to(dtype), (last * keep).to(dtype), empty


def padded_boxes(masks: Tensor, ratio: Tensor | float, pixels: float) -> CenterBoxes:
    """Padded true boxes: every side moves out by ``max(ratio * size, pixels)`` (paper, section 3.3: box loss).

    Args:
        masks: [B, N, H, W], foreground where > 0.5.
        ratio: share of the size, a number or [B, N, 1].
        pixels: smallest padding in pixels.

    Returns:
        Boxes [B, N, 2]. A mask without a pixel gets the box from (0, 0) to (2 pixels, 2 pixels), as in the original
        code; it belongs to no object and is never matched.
    """
    first, last, empty = tight_extent(masks)
    size = last - first
    padding = (ratio * size).clamp(min=pixels)
    boxes = CenterBoxes(center=(first + last) / 2, size=size + 2 * padding)
    return CenterBoxes(
        center=torch.where(empty[..., None], torch.full_like(boxes.center, pixels), boxes.center),
        size=torch.where(empty[..., None], torch.full_like(boxes.size, 2 * pixels), boxes.size),
    )


def unpadded_boxes(boxes: CenterBoxes, ratio: float, pixels: float) -> CenterBoxes:
    """Inverse of the padding of :func:`padded_boxes`: the tight boxes [..., 2] inside padded ones."""
    size = torch.minimum(boxes.size / (1 + 2 * ratio), boxes.size - 2 * pixels)
    return CenterBoxes(boxes.center, size.clamp(min=0.0))


def pixel_edges(boxes: CenterBoxes) -> CenterBoxes:
    """From boxes between the indices of first and last pixel to boxes around those pixels, as Detectron2's are."""
    return CenterBoxes(boxes.center + 0.5, boxes.size + 1)


def rasterize_boxes(boxes: CenterBoxes, height: int, width: int) -> Tensor:
    """Maps that are 1 where ``top_left <= index <= bottom_right`` and 0 elsewhere.

    Args:
        boxes: [B, N, 2] each.
        height: H in pixels.
        width: W in pixels.

    Returns:
        [B, N, H, W] float.
    """
    top_left, bottom_right = boxes.top_left, boxes.bottom_right
    inside = []
    for axis, length in enumerate((height, width)):
        index = torch.arange(length, device=top_left.device, dtype=top_left.dtype)
        inside.append((index >= top_left[..., axis, None]) & (index <= bottom_right[..., axis, None]))
    return (inside[0][..., :, None] & inside[1][..., None, :]).to(top_left.dtype)
