"""Cutting patches out at boxes and putting their pixels back, for any number of boxes of any number of images.

The counterpart of :mod:`.gaussian_attention` for the fast model: a patch point i lies where the Gaussian filter i has
its centre (paper, section 3.2), but is read bilinearly, and what is put back is sharp and ends at the box.

Shapes: `B` images, `n` boxes, `P` pixels inside boxes (of all boxes together), `F` side of a patch. Coordinates are
(y, x) in pixels of the network input, where the centre of pixel i is i; a box's size is the distance of its first and
last pixel, so that it covers size + 1 pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

from .boxes import CenterBoxes


def cut_patches(maps: Tensor, image: Tensor, boxes: CenterBoxes, side: int, stride: int = 1) -> Tensor:
    """Patches [n, C, F, F] of maps [B, C, H / stride, W / stride]; where a point covers several cells, their mean.

    Args:
        maps: in which outside counts as 0.
        image: [n], which of them.
        boxes: [n, 2] each.
        side: F.
        stride: pixels per cell of the maps.
    """
    first, last = boxes.top_left, boxes.bottom_right + 1  # edges, where the first pixel reaches from 0 to 1
    corners = torch.cat([image[:, None].to(first), first.flip(1), last.flip(1)], dim=1)
    return roi_align(maps, corners, side, 1 / stride, sampling_ratio=-1, aligned=True)


@dataclass
class BoxPixels:
    """Pixels inside boxes, box after box.

    Attributes:
        box: [P], the box.
        y, x: [P], the pixel.
        value: [P], what the box's patch is there.
    """

    box: Tensor
    y: Tensor
    x: Tensor
    value: Tensor


def _spans(center: Tensor, size: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """First pixel [n] inside each box on an axis of ``length`` pixels, and how many there are."""
    reach = (size + 1) / 2
    first = torch.ceil(center - reach).clamp(0, length)
    last = torch.floor(center + reach).clamp(-1, length - 1)
    return first.long(), (last - first + 1).clamp(min=0).long()


def paste_pixels(patches: Tensor, boxes: CenterBoxes, size: tuple[int, int]) -> BoxPixels:
    """Read patches [n, F, F] bilinearly at all pixels inside their boxes.

    Args:
        patches: one per box.
        boxes: [n, 2] each.
        size: (H, W) of the image; pixels outside are left out.
    """
    side = patches.shape[-1]
    (top, height), (left, width) = (_spans(boxes.center[:, i], boxes.size[:, i], size[i]) for i in (0, 1))
    counts = height * width
    box = torch.repeat_interleave(counts)
    within = torch.arange(len(box), device=box.device) - (counts.cumsum(0) - counts)[box]
    y, x = top[box] + within // width[box], left[box] + within % width[box]
    corners, shares = [], []
    for axis, pixel in enumerate((y, x)):
        scale = side / (boxes.size[:, axis] + 1)
        place = (pixel - boxes.center[box, axis]) * scale[box] + (side - 1) / 2
        place = place.clamp(0, side - 1)
        low = place.floor().clamp(max=max(side - 2, 0))
        corners.append(low.long())
        shares.append(place - low)
    flat, (down, right) = patches.flatten(), shares
    index = (box * side + corners[0]) * side + corners[1]
    above = torch.lerp(flat[index], flat[index + 1], right)
    below = torch.lerp(flat[index + side], flat[index + side + 1], right)
    return BoxPixels(box, y, x, torch.lerp(above, below, down))


def paste_maps(patches: Tensor, boxes: CenterBoxes, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What :func:`paste_pixels` gives as whole maps, whose shapes do not depend on the boxes: for graphs.

    Args:
        patches: [n, F, F].
        boxes: [n, 2] each.
        size: (H, W).

    Returns:
        Values [n, H, W], 0 outside the boxes, and where they are inside, [n, H, W] bool.
    """
    side = patches.shape[-1]
    points = torch.arange(side, dtype=patches.dtype, device=patches.device)
    weights, inside = [], []
    for axis in (0, 1):
        center, covered = boxes.center[:, axis, None], boxes.size[:, axis, None] + 1
        offset = torch.arange(size[axis], dtype=patches.dtype, device=patches.device) - center
        place = (offset * (side / covered) + (side - 1) / 2).clamp(0, side - 1)
        inside.append(offset.abs() <= covered / 2)
        weights.append((1 - (place[:, :, None] - points).abs()).clamp(min=0) * inside[-1][:, :, None])
    values = torch.bmm(torch.bmm(weights[0], patches), weights[1].transpose(1, 2))
    return values, inside[0][:, :, None] & inside[1][:, None, :]


def scale_boxes(boxes: CenterBoxes, old: tuple[int, int], new: tuple[int, int]) -> CenterBoxes:
    """Boxes [n, 2] of an image of size ``old`` (height, width) in one of size ``new``."""
    ratio = boxes.center.new_tensor([new[0] / old[0], new[1] / old[1]])
    return CenterBoxes((boxes.center + 0.5) * ratio - 0.5, (boxes.size + 1) * ratio - 1)
