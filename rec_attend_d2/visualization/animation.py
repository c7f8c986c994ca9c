"""How a model went through an image as an animation: one frame per step.

Shapes: `H, W` network input.
"""

import os

import numpy as np
from PIL import Image

from .canvas import grid, magnification, magnify, text_cell
from .colors import STOP, TEXT
from .instances import count_text, draw_found
from .steps import Trace, claimed, draw_heat, draw_step_boxes, draw_steps

# Sizes in pixels of the picture.
_SMALLEST_PANEL = 320
_HEADER_HEIGHT = 32


def draw_animation(trace: Trace, max_steps: int = 12) -> list[np.ndarray]:
    """One frame per step: left where the model looked and what it boxed, right the objects found so far.

    Returns:
        At most ``max_steps`` uint8 RGB pictures of equal size; above each the step, what it claimed, and the count.
    """
    factor = magnification(trace.image, _SMALLEST_PANEL)
    large = magnify(trace.image, factor)
    width = large.shape[1]
    frames = []
    for number, (step, found) in enumerate(zip(trace.steps[:max_steps], trace.found, strict=False)):
        goes_on, heading = claimed(step).any(), trace.heading(number)
        left = text_cell(heading if goes_on else f"{heading}: stop", _HEADER_HEIGHT, width, TEXT if goes_on else STOP)
        right = text_cell(f"{count_text(len(found))} so far", _HEADER_HEIGHT, width)
        panels = [draw_step_boxes(draw_heat(large, step, factor), step, factor), draw_found(large, found, factor)]
        frames.append(grid([[left, right], panels]))
    return frames


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


def save_steps(prefix: str | os.PathLike, trace: Trace) -> list[str]:
    """Write all steps as a picture (a column per step) and as an animation (a frame per step).

    Args:
        prefix: path that the files' endings ``_steps.png`` and ``_steps.gif`` are appended to.
        trace: of the image.

    Returns:
        Paths of the two files.
    """
    paths = [f"{os.fspath(prefix)}_steps.png", f"{os.fspath(prefix)}_steps.gif"]
    Image.fromarray(draw_steps(trace, len(trace.steps))).save(paths[0])
    save_gif(paths[1], draw_animation(trace, len(trace.steps)))
    return paths
