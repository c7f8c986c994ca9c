"""What the model is trained to predict, padded to T slots per image.

Shapes: `B` images, `N` slots (as many as time steps), `H, W` network input.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from detectron2.structures import Instances
from torch import Tensor

from ...layers.boxes import CenterBoxes, padded_boxes, rasterize_boxes


@dataclass
class Targets:
    """True instances of a batch, largest first.

    Attributes:
        masks: [B, N, H, W] in {0, 1}, float; empty slots are all 0.
        valid: [B, N] bool, slots that hold an instance; they come first.
        boxes: padded true boxes, [B, N, 2] each (y, x), pixels.
        padding_ratio, padding_pixels: how the boxes were padded.
    """

    masks: Tensor
    valid: Tensor
    boxes: CenterBoxes
    padding_ratio: float
    padding_pixels: float

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W), pixels."""
        height, width = self.masks.shape[-2:]
        return height, width

    @classmethod
    def from_masks(cls, masks: Tensor, padding_ratio: float, padding_pixels: float) -> "Targets":
        """Targets of masks [B, N, H, W]; a slot is valid if its mask has a pixel."""
        boxes = padded_boxes(masks, padding_ratio, padding_pixels)
        valid = masks.flatten(2).amax(2) > 0
        return cls(masks, valid, boxes, padding_ratio, padding_pixels)

    @classmethod
    def from_instances(
        cls, instances: Sequence[Instances], slots: int, padding_ratio: float, padding_pixels: float
    ) -> "Targets":
        """Targets of the ``gt_masks`` of a batch (BitMasks at network size).

        Raises:
            ValueError: an image has more instances than slots, or masks without a pixel. RecAttendDatasetMapper
                makes neither.
        """
        height, width = instances[0].image_size
        masks = torch.zeros(len(instances), slots, height, width)
        for index, entry in enumerate(instances):
            if len(entry) > slots:
                raise ValueError(f"{len(entry)} instances in an image, but only {slots} time steps (TIME_STEPS).")
            if len(entry):
                masks[index, : len(entry)] = entry.gt_masks.tensor.to(masks)
                if not masks[index, : len(entry)].flatten(1).any(1).all():
                    raise ValueError("gt_masks holds a mask without a pixel; leave such instances out.")
        return cls.from_masks(masks, padding_ratio, padding_pixels)

    def to(self, device: torch.device) -> "Targets":
        """The same on another device."""
        boxes = CenterBoxes(self.boxes.center.to(device), self.boxes.size.to(device))
        return dataclasses.replace(self, masks=self.masks.to(device), valid=self.valid.to(device), boxes=boxes)

    @property
    def counts(self) -> Tensor:
        """[B] number of instances."""
        return self.valid.sum(1)

    @cached_property
    def box_maps(self) -> Tensor:
        """[B, N, H, W], 1 inside the padded true box and 0 elsewhere; empty slots are all 0."""
        maps = rasterize_boxes(self.boxes, *self.masks.shape[2:])
        return maps * self.valid[:, :, None, None]
