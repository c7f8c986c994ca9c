"""What a glance claims, and what all glances of an image found.

Shapes: `n` candidates, `P` pixels inside boxes, `H, W` network input, `h0, w0` original image, `m` objects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from torch import Tensor

from ...layers.boxes import CenterBoxes
from ...layers.patches import BoxPixels, paste_pixels, scale_boxes
from ...structures import MaskCrops
from ..steps import Step, select
from .targets import CLAIMED_SHARE, CLAIMED_VALUE

# A pixel belongs to an object above this probability.
MASK_THRESHOLD = 0.5
# Side, in pixels of the original image, of the parts in which masks are made: what this takes does not grow with it.
_PART = 2048


@dataclass
class Claims:
    """Objects that were claimed in one image.

    Attributes:
        boxes: [m, 2] each, network pixels.
        logits: [m, F, F], of the masks in them.
        scores: [m].
        classes: [m] int64; 0 where there is one kind.
    """

    boxes: CenterBoxes
    logits: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        """m"""
        return len(self.scores)

    @classmethod
    def of_steps(cls, steps: Sequence[Step]) -> "Claims":
        """All that glances, each as of a batch of one, claimed."""
        parts = []
        for step in steps:
            assert step.claimed is not None and step.cut.patch_mask is not None
            own = step.claimed.nonzero()[:, 0]
            boxes, probabilities = select(step.where.boxes, own), step.class_probabilities
            classes = torch.zeros_like(own) if probabilities is None else probabilities[own].argmax(1)
            boxes = CenterBoxes(boxes.center.float(), boxes.size.float())
            parts.append(cls(boxes, step.cut.patch_mask[own].float(), step.score[own].float(), classes))
        return cls.cat(parts)

    @classmethod
    def cat(cls, parts: Sequence["Claims"]) -> "Claims":
        """Those of all parts, at least one, in their order."""
        return cls(
            CenterBoxes(
                torch.cat([part.boxes.center for part in parts]), torch.cat([part.boxes.size for part in parts])
            ),
            torch.cat([part.logits for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.classes for part in parts]),
        )


def mask_pixels(logits: Tensor, boxes: CenterBoxes, size: tuple[int, int]) -> BoxPixels:
    """Soft masks in (0, 1) at the pixels inside their boxes, of patch logits [n, F, F] in an image of ``size``."""
    pixels = paste_pixels(logits.float(), boxes, size)
    pixels.value.sigmoid_()
    return pixels


def new_objects(pixels: BoxPixels, image: Tensor, memory: Tensor, count: int) -> Tensor:
    """[n] bool, which of ``count`` soft masks are mostly on pixels that nobody has claimed; one without a pixel is not.

    An object is claimed once: without this rule a model that is wrong about what it has claimed would not end.

    Args:
        pixels: of the masks.
        image: [n], of the batch.
        memory: [B, H, W].
        count: n.
    """
    inside = pixels.value > MASK_THRESHOLD
    fresh = inside & (memory[image[pixels.box], pixels.y, pixels.x] <= CLAIMED_VALUE)
    area, new = (torch.bincount(pixels.box[which], minlength=count) for which in (inside, fresh))
    return new > (1 - CLAIMED_SHARE) * area


def write_claims(pixels: BoxPixels, image: Tensor, memory: Tensor) -> Tensor:
    """The memory [B, H, W] with soft masks, whose images are ``image`` [n], as pixel-wise maximum."""
    written = memory.clone()
    pixel = (image[pixels.box] * memory.shape[1] + pixels.y) * memory.shape[2] + pixels.x
    written.view(-1).scatter_reduce_(0, pixel, pixels.value.to(memory), "amax")
    return written


def strongest_masks(pixels: BoxPixels, size: tuple[int, int]) -> Tensor:
    """Label image [h0, w0] of soft masks: each pixel goes to the strongest one above MASK_THRESHOLD, of equals the
    first.

    Returns:
        int64; 0 = none, k + 1 = mask k.
    """
    height, width = size
    pixel = pixels.y * width + pixels.x
    strongest = pixels.value.new_full((height * width,), MASK_THRESHOLD)
    strongest.scatter_reduce_(0, pixel, pixels.value, "amax")
    wins = (pixels.value > MASK_THRESHOLD) & (pixels.value == strongest[pixel])
    none = torch.iinfo(torch.int64).max
    owner = torch.full((height * width,), none, device=pixel.device)
    owner.scatter_reduce_(0, pixel[wins], pixels.box[wins], "amin")
    return torch.where(owner == none, 0, owner + 1).view(height, width)


def _parts(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Parts (y0, x0, y1, x1) of an image of ``size``."""
    for y in range(0, size[0], _PART):
        for x in range(0, size[1], _PART):
            yield y, x, min(y + _PART, size[0]), min(x + _PART, size[1])


def claimed_masks(logits: Tensor, boxes: CenterBoxes, size: tuple[int, int], overlapping: bool) -> MaskCrops:
    """The masks of claims in an image, part by part, so that memory grows with their pixels alone.

    Args:
        logits: [m, F, F].
        boxes: [m, 2] each, pixels of the image.
        size: (h0, w0).
        overlapping: a pixel may belong to several masks; else it goes to the strongest.
    """
    limit = torch.tensor(size, device=logits.device)
    first = torch.minimum((boxes.center - (boxes.size + 1) / 2).floor().clamp(min=0).long(), limit)
    last = torch.minimum((boxes.center + (boxes.size + 1) / 2).floor().long() + 1, limit).clamp(min=0)
    corners, ends = first.cpu().numpy(), last.cpu().numpy()
    crops = [np.zeros(shape, bool) for shape in np.maximum(ends - corners, 0).tolist()]
    for y0, x0, y1, x1 in _parts(size):
        inside = ((first < limit.new_tensor([y1, x1])) & (last > limit.new_tensor([y0, x0]))).all(1)
        rows = inside.nonzero()[:, 0]
        if len(rows) == 0:
            continue
        part = (y1 - y0, x1 - x0)
        moved = CenterBoxes(boxes.center[rows] - boxes.center.new_tensor([y0, x0]), boxes.size[rows])
        pixels = mask_pixels(logits[rows], moved, part)
        if overlapping:
            _copy_pixels(crops, corners, rows.cpu().numpy(), pixels, (y0, x0))
        else:
            _copy_labels(
                crops, corners, ends, rows.cpu().numpy(), strongest_masks(pixels, part).cpu().numpy(), (y0, x0)
            )
    return MaskCrops(crops, corners, size)


def _copy_labels(
    crops: list[NDArray], corners: NDArray, ends: NDArray, rows: NDArray, labels: NDArray, origin: tuple[int, int]
) -> None:
    """Set what a part's label image gives to each of its masks, ``rows``."""
    low = np.maximum(corners[rows], origin)
    high = np.minimum(ends[rows], np.add(origin, labels.shape))
    for number, (row, (top, left), (bottom, right)) in enumerate(
        zip(rows.tolist(), low.tolist(), high.tolist(), strict=True), start=1
    ):
        y, x = corners[row]
        own = labels[top - origin[0] : bottom - origin[0], left - origin[1] : right - origin[1]] == number
        crops[row][top - y : bottom - y, left - x : right - x] = own


def _copy_pixels(
    crops: list[NDArray], corners: NDArray, rows: NDArray, pixels: BoxPixels, origin: tuple[int, int]
) -> None:
    """Set the pixels above the threshold of a part's masks, ``rows``."""
    ends = torch.bincount(pixels.box, minlength=len(rows)).cumsum(0).cpu().numpy()
    y, x, own = (values.cpu().numpy() for values in (pixels.y, pixels.x, pixels.value > MASK_THRESHOLD))
    for row, start, end in zip(rows.tolist(), [0, *ends[:-1]], ends, strict=True):
        crops[row][y[start:end] + origin[0] - corners[row, 0], x[start:end] + origin[1] - corners[row, 1]] = own[
            start:end
        ]


def instances_of_claims(
    claims: Claims,
    network_size: tuple[int, int],
    size: tuple[int, int],
    smallest_area: float,
    overlapping: bool = False,
) -> Instances:
    """Claims as instances at the image's own size.

    Args:
        claims: of the image.
        network_size: (H, W), of the scaled image.
        size: (h0, w0).
        smallest_area: objects of at most so many square network pixels are left out.
        overlapping: see :func:`claimed_masks`.

    Returns:
        Instances with ``pred_masks`` (MaskCrops [m, h0, w0]), ``pred_boxes`` (tight, XYXY), ``scores`` [m] and
        ``pred_classes`` [m], on the CPU.
    """
    masks = claimed_masks(claims.logits, scale_boxes(claims.boxes, network_size, size), size, overlapping)
    shrink = (network_size[0] / size[0]) * (network_size[1] / size[1])
    kept = torch.from_numpy(np.flatnonzero(masks.areas() * shrink > smallest_area))
    masks = masks[kept]
    result = Instances(size)
    result.pred_masks = masks
    result.pred_boxes = Boxes(torch.from_numpy(masks.boxes()).float())
    result.scores = claims.scores.cpu()[kept]
    result.pred_classes = claims.classes.cpu()[kept]
    return result
