"""Fixtures of the picture tests: sequences built by hand, whose every value is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling import BoxSequence, MaskSequence
from rec_attend_d2.modeling.step_types import Proposal

HEIGHT, WIDTH, STEPS = 40, 60, 4
# Per image and step: top, left, height, width of a rectangle whose corner pixels are the box's corners.
RECTANGLES = [
    [(4, 5, 11, 9), (20, 30, 13, 21), (25, 2, 7, 7), (2, 44, 9, 11)],
    [(0, 0, 5, 5), (6, 6, 5, 5), (12, 12, 5, 5), (18, 18, 5, 5)],
]
SCORES = [[0.9, 0.8, 0.2, 0.7], [0.9, 0.9, 0.9, 0.9]]


@dataclass
class Example:
    """A dark image and what a network did to it (as the first image of a batch of two)."""

    image: np.ndarray
    boxes: BoxSequence
    masks: MaskSequence


def _rectangle_masks() -> torch.Tensor:
    masks = torch.zeros(2, STEPS, HEIGHT, WIDTH)
    for image, rectangles in enumerate(RECTANGLES):
        for step, (top, left, height, width) in enumerate(rectangles):
            masks[image, step, top : top + height, left : left + width] = 1.0
    return masks


@pytest.fixture
def example() -> Example:
    """Two images, four steps: masks are filled rectangles, and the glimpse of step t is on place t of a 2 x 3 map."""
    masks = _rectangle_masks()
    rectangles = torch.tensor(RECTANGLES, dtype=torch.float32)
    size = rectangles[..., 2:] - 1
    boxes = CenterBoxes(center=rectangles[..., :2] + size / 2, size=size)
    glimpses = torch.full((2, STEPS, 2, 2, 3), 1 / 6)
    glimpses[:, :, 1] = torch.eye(6)[:STEPS].reshape(STEPS, 2, 3)
    unused = torch.zeros(2, STEPS)
    proposals = Proposal(boxes, boxes.center, boxes.size, boxes.size, unused, unused, unused, unused, glimpses)
    memories = torch.cat([torch.zeros(2, 1, HEIGHT, WIDTH), masks.cummax(dim=1).values[:, :-1]], dim=1)
    common = {
        "proposals": proposals,
        "scores": torch.tensor(SCORES),
        "class_probabilities": None,
        "memories": memories,
        "box_maps": masks,
    }
    patch_masks = torch.zeros(2, STEPS, 8, 8)
    patch_masks[:, :, :4] = 1.0
    return Example(
        image=np.full((HEIGHT, WIDTH, 3), 20, dtype=np.uint8),
        boxes=BoxSequence(**common),
        masks=MaskSequence(
            **common,
            masks=masks,
            patches=torch.zeros(2, STEPS, 4, 8, 8),
            patch_masks=patch_masks,
            used_boxes=boxes,
        ),
    )
