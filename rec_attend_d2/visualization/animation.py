"""The time steps of one image as an animation: one frame per step.

Shapes: `T` steps, `H, W` network input.
"""

import os

import numpy as np
from PIL import Image

from ..modeling.paper.postprocessing import strongest_instance
from ..modeling.paper.sequence import StepSequence
from .canvas import draw_box, grid, heat_overlay, magnification, magnify, text_cell
from .colors import STOP, TEXT, instance_color
from .instances import count_text, draw_masks
from .steps import box_corners, check_image, draw_sequence, glimpse_heat, to_array

# Sizes in pixels of the picture.
_SMALLEST_PANEL = 320
_HEADER_HEIGHT = 32
_THICKNESS = 2
# A pixel belongs to an object where score times soft mask is above this (default of MODEL.REC_ATTEND.TEST).
_MASK_THRESHOLD = 0.3


def draw_animation(
    image: np.ndarray, sequence: StepSequence, index: int, max_steps: int = 12, threshold: float = 0.5
) -> list[np.ndarray]:
    """One frame per time step: left where the network looks and the box it proposes, right the objects found so far.

    Args:
        image: uint8 RGB [H, W, 3] of the network's input size.
        sequence: of a batch; of the full model objects are shown as masks, of stage B as boxes.
        index: which image of the batch.
        max_steps: at most so many steps are drawn.
        threshold: steps of a lower score are no objects; they add none and are marked "stop".

    Returns:
        At most ``max_steps`` uint8 RGB pictures of equal size; above each the step, its score and the count so far.

    Raises:
        ValueError: the image is not uint8 [H, W, 3] of the sequence's size.
    """
    check_image(image, sequence)
    factor = magnification(image, _SMALLEST_PANEL)
    large = magnify(image, factor)
    scores = to_array(sequence.steps.score[index, :max_steps])
    glimpses = to_array(sequence.steps.scan.glimpse_maps[index, :max_steps, -1])
    corners = box_corners(sequence, index, factor)
    frames = []
    for step, (score, glimpse) in enumerate(zip(scores, glimpses, strict=True)):
        found = [earlier for earlier in range(step + 1) if scores[earlier] >= threshold]
        color = instance_color(step) if step in found else STOP
        looking = draw_box(heat_overlay(large, glimpse_heat(glimpse, *large.shape[:2])), corners[step], color)
        claimed = _draw_found(large, sequence, index, found, factor)
        if step in found:
            claimed = draw_box(claimed, corners[step], color)
        header = _header(f"step {step + 1}   score {score:.2f}", score >= threshold, len(found), large.shape[1])
        frames.append(grid([header, [looking, claimed]]))
    return frames


def _header(text: str, is_object: bool, count: int, width: int) -> list[np.ndarray]:
    left = (text, TEXT) if is_object else (f"{text}: stop", STOP)
    right = f"{count_text(count)} so far"
    return [text_cell(left[0], _HEADER_HEIGHT, width, left[1]), text_cell(right, _HEADER_HEIGHT, width)]


def _draw_found(large: np.ndarray, sequence: StepSequence, index: int, found: list[int], factor: int) -> np.ndarray:
    if sequence.steps.cut.patch_mask is not None:
        maps = to_array((sequence.masks[index] * sequence.steps.score[index, :, None, None])[found])
        masks = strongest_instance(maps, _MASK_THRESHOLD)
        return draw_masks(large, masks.repeat(factor, axis=1).repeat(factor, axis=2), found, _THICKNESS)
    for step in found:
        large = draw_box(large, box_corners(sequence, index, factor)[step], instance_color(step), _THICKNESS)
    return large


def save_gif(path: str | os.PathLike, frames: list[np.ndarray], seconds_per_frame: float = 1.0) -> None:
    """Write an endlessly repeated animation.

    Args:
        path: of the GIF.
        frames: uint8 RGB pictures of equal size, no two consecutive ones identical (GIF would join those).
        seconds_per_frame: how long each is shown.

    Raises:
        ValueError: there are no frames.
    """
    if not frames:
        raise ValueError(f"{os.fspath(path)}: an animation needs at least one frame.")
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=round(seconds_per_frame * 1000), loop=0)


def save_steps(prefix: str | os.PathLike, image: np.ndarray, sequence: StepSequence, threshold: float) -> list[str]:
    """Write all steps of a batch's first image as a picture (a column per step) and as an animation (a frame per step).

    Args:
        prefix: path that the files' endings ``_steps.png`` and ``_steps.gif`` are appended to.
        image, sequence, threshold: as for :func:`draw_animation`.

    Returns:
        Paths of the two files.
    """
    paths = [f"{os.fspath(prefix)}_steps.png", f"{os.fspath(prefix)}_steps.gif"]
    steps = sequence.steps.score.shape[1]
    Image.fromarray(draw_sequence(image, sequence, 0, steps, threshold)).save(paths[0])
    save_gif(paths[1], draw_animation(image, sequence, 0, steps, threshold))
    return paths
