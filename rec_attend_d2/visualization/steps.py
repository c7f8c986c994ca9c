"""A picture of the time steps of one image: where the network looks, what it proposes and claims (paper, figure 1).

Shapes: `B` images, `T` steps, `H, W` network input, `K` glimpses, `h, w` control CNN's map, `F_h, F_w` patch.
"""

import cv2
import numpy as np
from torch import Tensor

from ..modeling.paper.sequence import StepSequence
from .canvas import dimmed, draw_box, fit, gray_picture, grid, heat_overlay, magnification, magnify, text_cell, tint
from .colors import BOX, FADED_TEXT, MASK, STOP, TEXT

# Sizes in pixels of the picture.
_SMALLEST_CELL = 160
_LABEL_WIDTH = 112
_HEADER_HEIGHT = 44


def to_array(tensor: Tensor) -> np.ndarray:
    """A float32 array of a tensor of any device and precision."""
    return tensor.detach().float().cpu().numpy()


def seen_image(entry: dict) -> np.ndarray:
    """The image of a dict of RecAttendDatasetMapper as the network sees it: uint8 RGB [H, W, 3]."""
    return np.ascontiguousarray(entry["image"].numpy().transpose(1, 2, 0)[:, :, ::-1])


def glimpse_heat(glimpse_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """A glimpse map as heat, on a log scale: 0 where it is not above uniform, 1 where all of it is on one place.

    Args:
        glimpse_map: [h, w], sums to 1.
        height, width: of the heat, in pixels.

    Returns:
        [height, width] in 0..1. A uniform map, which looks everywhere alike, is 0 everywhere.
    """
    places = glimpse_map.size
    heat = np.log(np.maximum(glimpse_map * places, 1)) / np.log(max(places, 2))
    return cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)


def _look_row(image: np.ndarray, sequence: StepSequence, index: int, steps: int, factor: int) -> list[np.ndarray]:
    large = magnify(image, factor)
    maps = to_array(sequence.steps.scan.glimpse_maps[index, :steps, -1])
    return [heat_overlay(large, glimpse_heat(glimpse_map, *large.shape[:2])) for glimpse_map in maps]


def box_corners(sequence: StepSequence, index: int, factor: int) -> np.ndarray:
    """Corners of the proposed boxes in a picture magnified by ``factor``: [T, 4], (x0, y0, x1, y1), pixels."""
    # The centre of pixel i, which is i for the network, lies at (i + 0.5) * factor in the picture.
    return (to_array(sequence.steps.proposal.boxes.xyxy()[index]) + 0.5) * factor


def _box_row(image: np.ndarray, sequence: StepSequence, index: int, steps: int, factor: int) -> list[np.ndarray]:
    large = magnify(image, factor)
    return [draw_box(large, corners, BOX) for corners in box_corners(sequence, index, factor)[:steps]]


def _patch_mask_row(image: np.ndarray, sequence: StepSequence, index: int, steps: int, factor: int) -> list[np.ndarray]:
    height, width = image.shape[0] * factor, image.shape[1] * factor
    patches = sequence.steps.cut.patch_mask[index, :steps]
    if (patches < 0).any():
        patches = patches.sigmoid()  # logits; the paper's head gives masks >= 0
    return [fit(gray_picture(patch), height, width) for patch in to_array(patches)]


def _tint_row(image: np.ndarray, maps: Tensor, factor: int) -> list[np.ndarray]:
    return [magnify(tint(image, values, MASK), factor) for values in to_array(maps)]


def _memory_row(sequence: StepSequence, index: int, steps: int, factor: int) -> list[np.ndarray]:
    return [magnify(gray_picture(memory), factor) for memory in to_array(sequence.steps.memory[index, :steps])]


def _labelled_rows(
    image: np.ndarray, sequence: StepSequence, index: int, steps: int, factor: int
) -> list[tuple[str, list[np.ndarray]]]:
    rows = [
        ("where it\nlooks", _look_row(image, sequence, index, steps, factor)),
        ("proposed\nbox", _box_row(image, sequence, index, steps, factor)),
    ]
    if sequence.steps.cut.patch_mask is not None:
        rows.append(("mask inside\nthe box", _patch_mask_row(image, sequence, index, steps, factor)))
        rows.append(("mask on\nthe image", _tint_row(image, sequence.masks[index, :steps], factor)))
    else:
        rows.append(("box as a\nsoft map", _tint_row(image, sequence.box_maps[index, :steps], factor)))
    rows.append(("memory\nbefore\nthe step", _memory_row(sequence, index, steps, factor)))
    return rows


def _header(step: int, score: float, threshold: float, width: int) -> np.ndarray:
    text = f"step {step + 1}\nscore {score:.2f}"
    if score >= threshold:
        return text_cell(text, _HEADER_HEIGHT, width, TEXT)
    return text_cell(f"{text}: stop", _HEADER_HEIGHT, width, STOP)


def check_image(image: np.ndarray, sequence: StepSequence) -> None:
    """Raise a ValueError unless the image is uint8 [H, W, 3] of the size of the sequence's maps."""
    expected = (*sequence.steps.memory.shape[-2:], 3)
    if image.dtype != np.uint8 or image.shape != expected:
        raise ValueError(
            f"The image must be uint8 RGB of shape {expected}, the network's input size; "
            f"got {image.dtype} of shape {image.shape}."
        )


def draw_sequence(
    image: np.ndarray, sequence: StepSequence, index: int, max_steps: int = 12, threshold: float = 0.5
) -> np.ndarray:
    """One column per time step: score, glimpse, box, mask and memory (paper, figure 1).

    Args:
        image: uint8 RGB [H, W, 3] of the network's input size.
        sequence: of a batch; of the full model masks are shown too, of stage B box maps.
        index: which image of the batch.
        max_steps: at most so many steps are drawn.
        threshold: steps of a lower score are no objects; they are dimmed and marked "stop".

    Returns:
        uint8 RGB picture. Small images are magnified without blur. Boxes are drawn as proposed, which means padded.

    Raises:
        ValueError: the image is not uint8 [H, W, 3] of the sequence's size.
    """
    check_image(image, sequence)
    factor = magnification(image, _SMALLEST_CELL)
    scores = to_array(sequence.steps.score[index, :max_steps])
    steps = len(scores)
    header = [text_cell("", _HEADER_HEIGHT, _LABEL_WIDTH)]
    header += [_header(step, float(score), threshold, image.shape[1] * factor) for step, score in enumerate(scores)]
    rows = [header]
    for label, cells in _labelled_rows(image, sequence, index, steps, factor):
        shown = [cell if score >= threshold else dimmed(cell) for cell, score in zip(cells, scores, strict=True)]
        rows.append([text_cell(label, image.shape[0] * factor, _LABEL_WIDTH, FADED_TEXT), *shown])
    return grid(rows)
