"""A picture of how a model went through an image: where it looked, what it boxed and claimed (paper, figure 1).

Shapes: `n` boxes of a step, `H, W` network input, `h, w` map on which the next place is chosen, `F_h, F_w` patch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from ..modeling import RecurrentAttention
from ..modeling.steps import Step
from .canvas import dimmed, draw_boxes, fit, gray_picture, grid, heat_overlay, magnification, magnify, text_cell
from .colors import BOX, FADED_TEXT, STOP, TEXT
from .instances import count_text, draw_found

# Sizes in pixels of the picture.
_SMALLEST_CELL = 160
_LABEL_WIDTH = 112
_HEADER_HEIGHT = 44
# Side of what is shown of a picture that is cut into tiles.
_LARGEST_TRACED = 512


def to_array(tensor: Tensor) -> np.ndarray:
    """A float32 array of a tensor of any device and precision."""
    return tensor.detach().float().cpu().numpy()


def seen_image(entry: dict) -> np.ndarray:
    """The image of a dict of RecAttendDatasetMapper as the network sees it: uint8 RGB [H, W, 3]."""
    return np.ascontiguousarray(entry["image"].numpy().transpose(1, 2, 0)[:, :, ::-1])


@dataclass
class Trace:
    """How a model went through one image.

    Attributes:
        image: uint8 RGB [H, W, 3], as the network sees it.
        steps: each as of a batch of one; the last one claims nothing where the model stopped by itself.
        found: after each step, what the model's own post-processing makes of the steps until then, at network size.
        name: "step", or "glance" of a model that claims several objects in one.
    """

    image: np.ndarray
    steps: list[Step]
    found: list[Instances]
    name: str

    def heading(self, number: int) -> str:
        """What step ``number``, counted from 0, claimed."""
        step = self.steps[number]
        title = f"{self.name} {number + 1}"
        if self.name == "glance":
            return f"{title}: {count_text(int(claimed(step).sum()))}"
        return f"{title}, score {step.score.max().item():.2f}"


@torch.no_grad()
def trace(model: RecurrentAttention, entry: dict) -> Trace:
    """Run a model in evaluation mode on a dataset dict of its mapper and keep all of it.

    Of a picture so large that it is looked at in tiles only the upper left part is traced.
    """
    if not isinstance(entry["image"], Tensor):
        entry = {"image": entry["image"][:, :_LARGEST_TRACED, :_LARGEST_TRACED]}
    (steps,), extra = model.run([entry])
    # Without the file's size instances are made at the network's.
    seen = {key: value for key, value in entry.items() if key not in ("height", "width")}
    found = [model.instances(steps[: number + 1], extra, seen) for number in range(len(steps))]
    return Trace(seen_image(entry), steps, found, model.step_name)


def claimed(step: Step) -> np.ndarray:
    """[n] bool, which of the step's boxes are objects."""
    assert step.claimed is not None
    return step.claimed.cpu().numpy()


def box_corners(step: Step, factor: int) -> np.ndarray:
    """Corners of a step's boxes in a picture magnified by ``factor``: [n, 4], (x0, y0, x1, y1), pixels."""
    # The centre of pixel i, which is i for the network, lies at (i + 0.5) * factor in the picture.
    return (to_array(step.where.boxes.xyxy()) + 0.5) * factor


def draw_heat(large: np.ndarray, step: Step, factor: int) -> np.ndarray:
    """Where the step looked, over a dimmed picture."""
    height, width = large.shape[:2]
    heat, (rows, columns) = to_array(step.scan.heat()[0]), step.memory.shape[1:]
    # It covers what the network saw, which may reach beyond the picture.
    seen = cv2.resize(heat, (columns * factor, rows * factor), interpolation=cv2.INTER_NEAREST)
    return heat_overlay(large, seen[:height, :width])


def draw_step_boxes(picture: np.ndarray, step: Step, factor: int) -> np.ndarray:
    """The boxes that the step claimed; of a step that claimed none those it looked at."""
    kept, corners = claimed(step), box_corners(step, factor)
    shown = corners[kept] if kept.any() else corners
    return draw_boxes(picture, shown, [BOX if kept.any() else STOP] * len(shown))


def draw_memory(image: np.ndarray, step: Step, factor: int) -> np.ndarray:
    """What was claimed before the step, of a picture [H, W, 3] magnified by ``factor``."""
    height, width = image.shape[:2]
    return magnify(gray_picture(to_array(step.memory[0, :height, :width])), factor)


def _patches(step: Step, height: int, width: int) -> np.ndarray:
    """The masks inside the boxes, side by side in a square."""
    assert step.cut.patch_mask is not None
    kept = claimed(step)
    patches = step.cut.patch_mask[torch.from_numpy(kept)] if kept.any() else step.cut.patch_mask
    if step.cut.mask is None:
        patches = patches.sigmoid()  # logits of the fast model; the paper's head gives masks >= 0
    side = math.ceil(math.sqrt(len(patches)))
    cells = np.zeros((side * side, *(length + 1 for length in patches.shape[1:])), np.float32)
    cells[: len(patches), :-1, :-1] = to_array(patches)
    rows = [np.concatenate(cells[row * side : (row + 1) * side], axis=1) for row in range(side)]
    return fit(gray_picture(np.concatenate(rows)[:-1, :-1]), height, width)


def draw_steps(trace: Trace, max_steps: int = 12) -> np.ndarray:
    """One column per step: what it claimed, where it looked, its boxes, masks, all found so far, and its memory.

    Returns:
        uint8 RGB picture. Small images are magnified without blur. Boxes are drawn as proposed, which means padded.
        A step that claims nothing is dimmed and marked "stop".
    """
    factor = magnification(trace.image, _SMALLEST_CELL)
    large = magnify(trace.image, factor)
    height, width = large.shape[:2]
    rows: list[tuple[str, Callable[[int, Step], np.ndarray]]] = [
        ("where it\nlooks", lambda number, step: draw_heat(large, step, factor)),
        ("proposed\nboxes", lambda number, step: draw_step_boxes(large, step, factor)),
        ("masks inside\nthe boxes", lambda number, step: _patches(step, height, width)),
        ("found\nso far", lambda number, step: draw_found(large, trace.found[number], factor)),
        ("memory\nbefore it", lambda number, step: draw_memory(trace.image, step, factor)),
    ]
    steps = list(enumerate(trace.steps[:max_steps]))
    if steps[0][1].cut.patch_mask is None:  # stage B cuts nothing out
        del rows[2]
    going_on = [bool(claimed(step).any()) for _, step in steps]
    header = [text_cell("", _HEADER_HEIGHT, _LABEL_WIDTH)]
    for (number, _), goes_on in zip(steps, going_on, strict=True):
        text = trace.heading(number).replace(": ", "\n").replace(", ", "\n")
        header.append(text_cell(text if goes_on else f"{text}: stop", _HEADER_HEIGHT, width, TEXT if goes_on else STOP))
    picture = [header]
    for label, draw in rows:
        cells = [draw(number, step) for number, step in steps]
        shown = [cell if goes_on else dimmed(cell) for cell, goes_on in zip(cells, going_on, strict=True)]
        picture.append([text_cell(label, height, _LABEL_WIDTH, FADED_TEXT), *shown])
    return grid(picture)
