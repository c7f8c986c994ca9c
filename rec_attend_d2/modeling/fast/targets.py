"""What the fast model is trained to find: objects as a label image, which costs the same however many there are.

Shapes: `B` images, `N` object slots (as many as the image with most objects has), `P` places, `n` candidates or
patches, `H, W` network input, `F` side of a patch. Coordinates are (y, x) in pixels of the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...layers.boxes import CenterBoxes
from ...layers.overlap import pairwise_box_iou
from ..steps import select

# A pixel counts as claimed above this value of the memory, an object once this share of its pixels is claimed.
CLAIMED_VALUE = 0.5
CLAIMED_SHARE = 0.5


@dataclass
class ObjectTargets:
    """True objects of a batch.

    Attributes:
        labels: [B, H, W] int64, k + 1 where object k is and 0 where none is. Where objects overlap it is the smaller.
        taken: [B, H, W] bool, pixels that count as claimed from the start: there is nothing to be found.
        boxes: padded true boxes, [B, N, 2] each.
        areas: [B, N], pixels in the label image; 0 = there is no such object.
        classes: [B, N], from 0 on.
    """

    labels: Tensor
    taken: Tensor
    boxes: CenterBoxes
    areas: Tensor
    classes: Tensor

    @classmethod
    def from_labels(cls, labels: Tensor, classes: Sequence[Tensor], padding: tuple[float, float]) -> "ObjectTargets":
        """Targets of label images.

        Args:
            labels: [B, H, W] int, as :class:`rec_attend_d2.data.window_mapper.WindowMapper` gives them; negative where
                nothing is to be found.
            classes: one [N_i] per image.
            padding: each side of a box moves out by max(first * size, second).
        """
        batch, slots = len(labels), max(1, *(len(own) for own in classes))
        taken, labels = labels < 0, labels.clamp(min=0).long()
        padded = torch.zeros(batch, slots, dtype=torch.int64)
        for row, own in enumerate(classes):
            padded[row, : len(own)] = own
        first = torch.arange(batch, device=labels.device)[:, None, None] * slots
        areas, corners = label_boxes(torch.where(labels > 0, labels + first, 0), batch * slots)
        corners = corners.view(batch, slots, 4).float()
        # From edges to the indices of the first and the last pixel.
        low, high = corners[..., :2].flip(-1), corners[..., 2:].flip(-1) - 1
        size = high - low
        boxes = CenterBoxes((low + high) / 2, size + 2 * (padding[0] * size).clamp(min=padding[1]))
        return cls(labels, taken, boxes, areas.view(batch, slots), padded.to(labels.device))

    @property
    def valid(self) -> Tensor:
        """[B, N] bool, slots that hold an object."""
        return self.areas > 0

    def unclaimed(self, memory: Tensor) -> Tensor:
        """[B, N] bool, objects that are still to be found, for a memory [B, H, W] in [0, 1]."""
        claimed = torch.where(memory > CLAIMED_VALUE, self.labels, 0)
        covered = pixels_of_objects(claimed, self.areas.shape[1])
        return self.valid & (covered < CLAIMED_SHARE * self.areas)

    def place_owners(self, unclaimed: Tensor, map_size: tuple[int, int], stride: int) -> Tensor:
        """[B, P], which unclaimed object each place stands for, counted from 1; 0 = none.

        A place stands for the object its centre is a pixel of, and for the one whose box's centre lies in it; of
        several for the smallest.

        Args:
            unclaimed: [B, N] bool.
            map_size: (h, w), places.
            stride: pixels per place.
        """
        numbers = torch.arange(1, unclaimed.shape[1] + 1, device=unclaimed.device) * unclaimed
        lookup = torch.cat([torch.zeros_like(numbers[:, :1]), numbers], dim=1)
        centers = self.labels[:, stride // 2 :: stride, stride // 2 :: stride]
        owners = lookup.gather(1, centers.flatten(1))
        height, width = map_size
        y, x = ((self.boxes.center + 0.5) / stride).long().unbind(-1)
        place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        return owners.scatter_reduce(1, place, numbers, "amax")

    @torch.no_grad()
    def cut(self, image: Tensor, instance: Tensor, boxes: CenterBoxes, side: int) -> tuple[Tensor, Tensor]:
        """True masks at boxes, and those of the other objects there, [n, F, F] in [0, 1] each.

        Args:
            image, instance: [n], the image of the batch and the object in it, from 0 on.
            boxes: [n, 2] each.
            side: F.
        """
        steps = (torch.arange(side, device=image.device) + 0.5) / side - 0.5
        length = self.labels.shape[1:]
        axes = []
        for axis in (0, 1):
            place = boxes.center[:, axis, None] + (boxes.size[:, axis, None] + 1) * steps
            low = place.floor()
            axes.append([(low.long() + i, 1 - (place - low - i).abs()) for i in (0, 1)])
        own = others = torch.zeros(())
        for y, share_y in axes[0]:
            for x, share_x in axes[1]:
                inside = ((y >= 0) & (y < length[0]))[:, :, None] & ((x >= 0) & (x < length[1]))[:, None, :]
                rows, columns = y.clamp(0, length[0] - 1)[:, :, None], x.clamp(0, length[1] - 1)[:, None, :]
                label = self.labels[image[:, None, None], rows, columns] * inside
                share = share_y[:, :, None] * share_x[:, None, :]
                is_own = label == (instance + 1)[:, None, None]
                own = own + share * is_own
                others = others + share * ((label > 0) & ~is_own)
        return own, others


def label_boxes(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Areas [m] and tight boxes [m, 4] (XYXY, pixels) of the objects 1 to ``count`` of label images [..., h, w].

    The box of an object without a pixel is 0.
    """
    y, x = labels.nonzero(as_tuple=True)[-2:]
    owner = labels[labels > 0].long() - 1
    low, high = (torch.full((count, 2), value, device=labels.device) for value in (torch.iinfo(torch.int64).max, 0))
    place, index = torch.stack([x, y], dim=1), owner[:, None].expand(-1, 2)
    low, high = low.scatter_reduce(0, index, place, "amin"), high.scatter_reduce(0, index, place + 1, "amax")
    return torch.bincount(owner, minlength=count), torch.cat([torch.minimum(low, high), high], dim=1)


def pixels_of_objects(labels: Tensor, slots: int) -> Tensor:
    """[B, slots], how many pixels each object has in label images [B, H, W]."""
    batch = len(labels)
    rows = torch.arange(batch, device=labels.device)[:, None, None] * (slots + 1)
    counts = torch.bincount((labels + rows).flatten(), minlength=batch * (slots + 1))
    return counts.view(batch, slots + 1)[:, 1:]


@torch.no_grad()
def overlap_with_objects(boxes: CenterBoxes, image: Tensor, targets: ObjectTargets) -> Tensor:
    """[n, N], IoU of boxes [n, 2] with the boxes of all objects of their images [n]."""
    own = CenterBoxes(boxes.center[:, None], boxes.size[:, None])
    return pairwise_box_iou(own, select(targets.boxes, image))[:, 0]


def match_candidates(overlap: Tensor, image: Tensor, free: Tensor, least: float) -> Tensor:
    """Match each candidate with at most one object, best candidate first.

    Args:
        overlap: [n, N], box IoU with every object of its image.
        image: [n], its image; within an image candidates come best first.
        free: [B, N] bool, objects that may be matched.
        least: smallest overlap of a pair.

    Returns:
        [n], the object, or -1.
    """
    slots = free.shape[1]
    matched = torch.full_like(image, -1)
    order = torch.arange(len(image), device=image.device)
    free = free.clone()
    # A round for each time that a candidate loses the object it overlaps most; there are one or two.
    while True:
        allowed = torch.where(free[image] & (matched < 0)[:, None], overlap, 0)
        best, instance = allowed.max(1)
        wants = best > least
        if not wants.any():
            return matched
        wanted = image * slots + instance
        first = torch.full((free.numel(),), len(image), device=image.device)
        first = first.scatter_reduce(0, wanted[wants], order[wants], "amin")
        gets = wants & (first[wanted] == order)
        matched = torch.where(gets, instance, matched)
        free.view(-1)[wanted[gets]] = False
