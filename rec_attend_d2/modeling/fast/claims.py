"""What a glance claims, and what all glances of an image found.

Shapes: `n` candidates, `P` pixels inside boxes, `H, W` network input, `h0, w0` original image, `m` objects.
"""

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...layers.boxes import CenterBoxes
from ...layers.patches import BoxPixels, paste_pixels, scale_boxes
from ..steps import Step, select
from .targets import CLAIMED_SHARE, CLAIMED_VALUE

# A pixel belongs to an object above this probability.
MASK_THRESHOLD = 0.5


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


def label_boxes(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Areas [m] and tight boxes [m, 4] (XYXY, pixels) of the objects 1 to ``count`` of a label image [h0, w0]."""
    y, x = labels.nonzero(as_tuple=True)
    owner = labels[y, x] - 1
    low, high = (torch.full((count, 2), value, device=labels.device) for value in (torch.iinfo(torch.int64).max, 0))
    place, index = torch.stack([x, y], dim=1), owner[:, None].expand(-1, 2)
    low, high = low.scatter_reduce(0, index, place, "amin"), high.scatter_reduce(0, index, place + 1, "amax")
    return torch.bincount(owner, minlength=count), torch.cat([low, high], dim=1)


def instances_of_glances(
    steps: list[Step], network_size: tuple[int, int], size: tuple[int, int], min_area: int
) -> Instances:
    """All that the glances of one image claimed, at the image's own size.

    Args:
        steps: each as of a batch of one.
        network_size: (H, W).
        size: (h0, w0).
        min_area: objects of at most so many pixels are left out.

    Returns:
        Instances with ``pred_masks`` [m, h0, w0] bool (no two overlap), ``pred_boxes`` (tight, XYXY), ``scores`` [m]
        and ``pred_classes`` [m], on the CPU.
    """
    logits, centers, sizes, scores, classes = [], [], [], [], []
    for step in steps:
        assert step.claimed is not None and step.cut.patch_mask is not None
        logits.append(step.cut.patch_mask[step.claimed])
        boxes = select(step.where.boxes, step.claimed)
        centers.append(boxes.center), sizes.append(boxes.size)
        scores.append(step.score[step.claimed])
        if step.class_probabilities is not None:
            classes.append(step.class_probabilities[step.claimed].argmax(1))
    boxes = scale_boxes(CenterBoxes(torch.cat(centers).float(), torch.cat(sizes).float()), network_size, size)
    labels = strongest_masks(mask_pixels(torch.cat(logits), boxes, size), size)
    score = torch.cat(scores).float()
    area, corners = label_boxes(labels, len(score))
    kept = (area > min_area).nonzero()[:, 0].cpu()
    result = Instances(size)
    result.pred_masks = labels.cpu() == (kept + 1)[:, None, None]
    result.pred_boxes = Boxes(corners.cpu()[kept].float())
    result.scores = score.cpu()[kept]
    result.pred_classes = torch.cat(classes).cpu()[kept] if classes else torch.zeros_like(kept)
    return result
