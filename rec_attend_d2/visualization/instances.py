"""Pictures of results: instances in distinct colours, and how many there are.

Shapes: `N` instances, `H, W` picture in pixels.
"""

import numpy as np
from detectron2.structures import Instances

from ..evaluation.counting_evaluator import true_masks
from .canvas import draw_boxes, draw_masks, grid, magnification, magnify, magnify_masks, text_cell, write_corner
from .colors import instance_color

_SMALLEST_PICTURE = 320
_HEADER_HEIGHT = 32


def count_text(count: int) -> str:
    """``count`` objects in words."""
    return f"{count} object{'' if count == 1 else 's'}"


def draw_instances(image: np.ndarray, instances: Instances) -> np.ndarray:
    """Every instance in its own colour and the count in the top left corner.

    Args:
        image: uint8 RGB [H, W, 3]. Small images are magnified without blur.
        instances: at the image's size, with ``pred_masks`` or, without masks, ``pred_boxes``.

    Returns:
        uint8 RGB picture, a whole multiple of the image's size.

    Raises:
        ValueError: the instances are of another image size, or have neither masks nor boxes.
    """
    if tuple(instances.image_size) != image.shape[:2]:
        raise ValueError(f"The instances are of an image of size {instances.image_size}, not {image.shape[:2]}.")
    factor = magnification(image, _SMALLEST_PICTURE)
    picture = draw_found(magnify(image, factor), instances, factor)
    return write_corner(picture, count_text(len(instances)), size=max(15, min(picture.shape[:2]) // 24))


def draw_found(large: np.ndarray, instances: Instances, factor: int) -> np.ndarray:
    """Every instance in its own colour on a picture magnified by ``factor``; see :func:`draw_instances`."""
    thickness = max(1, min(large.shape[:2]) // 300)
    if instances.has("pred_masks"):
        masks = magnify_masks(instances.pred_masks, factor)
        return draw_masks(large, masks, list(map(instance_color, range(len(masks)))), thickness=thickness)
    if not instances.has("pred_boxes"):
        raise ValueError("The instances have neither 'pred_masks' nor 'pred_boxes'.")
    corners = instances.pred_boxes.tensor.detach().cpu().numpy() * factor
    return draw_boxes(large, corners, list(map(instance_color, range(len(corners)))), thickness + 1)


def true_instances(record: dict, size: tuple[int, int]) -> Instances:
    """The annotated objects of an image, without crowd regions, as :func:`draw_instances` takes them.

    Args:
        record: Detectron2 dataset dict with ``annotations``.
        size: (H, W) of the image file.

    Returns:
        Instances with ``pred_masks``.

    Raises:
        ValueError: an annotation without valid segmentation.
    """
    masks = true_masks({**record, "height": size[0], "width": size[1]}, iscrowd=0)
    return Instances(size, pred_masks=masks)


def side_by_side(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Pictures [H, W, 3] of one height in a row, each below its name."""
    names = [text_cell(name, _HEADER_HEIGHT, picture.shape[1]) for name, picture in pictures.items()]
    return grid([names, list(pictures.values())])
