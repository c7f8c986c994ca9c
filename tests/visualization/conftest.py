"""Fixtures of the picture tests: traces built by hand, whose every value is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.steps import Cut, Proposal, Scan, Step, Where
from rec_attend_d2.visualization.steps import Trace

HEIGHT, WIDTH = 40, 60
# Per step: top, left, height, width of rectangles whose corner pixels are the box's corners; and which are claimed.
GLANCES = [
    ([(4, 5, 11, 9), (20, 30, 13, 21)], [True, True]),
    ([(25, 2, 7, 7), (2, 44, 9, 11)], [True, False]),
    ([(30, 20, 5, 5)], [False]),
]


@dataclass
class KnownScan(Scan):
    """A scan whose heat is given, [B, h, w]."""

    given: Tensor

    def heat(self) -> Tensor:
        return self.given


def rectangle_mask(top: int, left: int, height: int, width: int) -> Tensor:
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[top : top + height, left : left + width] = 1.0
    return mask


def _step(number: int, rectangles: list, claimed: list[bool], memory: Tensor, with_patches: bool) -> Step:
    values = torch.tensor(rectangles, dtype=torch.float32)
    size = values[:, 2:] - 1
    boxes, image = CenterBoxes(values[:, :2] + size / 2, size), torch.zeros(len(values), dtype=torch.int64)
    heat = torch.eye(6)[number].reshape(1, 2, 3)  # on place `number` of a 2 x 3 map
    patches = torch.zeros(len(values), 8, 8)
    patches[:, :4] = 1.0
    patches = patches * 40 - 20  # logits
    cut = Cut(None, None, patches if with_patches else None)
    score = torch.where(torch.tensor(claimed), 0.9, 0.2)
    proposal = Proposal(image, boxes, torch.zeros(len(values), 1))
    return Step(memory[None], KnownScan(heat), proposal, Where(image, boxes), cut, score, None, torch.tensor(claimed))


def make_trace(with_patches: bool = True, name: str = "glance") -> Trace:
    """A dark image and three glances, the last of which claims nothing."""
    steps, found, memory, masks, corners = [], [], torch.zeros(HEIGHT, WIDTH), [], []
    for number, (rectangles, claimed) in enumerate(GLANCES):
        steps.append(_step(number, rectangles, claimed, memory, with_patches))
        for (top, left, height, width), kept in zip(rectangles, claimed, strict=True):
            if kept:
                masks.append(rectangle_mask(top, left, height, width))
                corners.append((left, top, left + width, top + height))
        memory = torch.stack(masks).amax(0)
        instances = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(torch.tensor(corners, dtype=torch.float32)))
        if with_patches:
            instances.pred_masks = torch.stack(masks) > 0
        found.append(instances)
    return Trace(np.full((HEIGHT, WIDTH, 3), 20, dtype=np.uint8), steps, found, name)


@pytest.fixture
def example() -> Trace:
    return make_trace()


@pytest.fixture
def boxes_alone() -> Trace:
    """Of a model that cuts nothing out, as stage B."""
    return make_trace(with_patches=False, name="step")
