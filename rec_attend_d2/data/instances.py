"""From the annotations of one image to the masks the network learns from.

Shapes: `N` instances, `H, W` size of the image file, `h, w` size of the network input; all in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances
from numpy.typing import NDArray

from .segmentation import annotation_mask


@dataclass(frozen=True)
class InstanceTargets:
    """The objects of one image at network size, largest area first.

    Attributes:
        masks: bool [N, h, w]; none is empty.
        classes: int64 [N], 0 to number of classes - 1.
        crowd_regions: annotations that were left out because they mark a group of objects (COCO's ``iscrowd``).
    """

    masks: NDArray[np.bool_]
    classes: NDArray[np.int64]
    crowd_regions: int

    def to_instances(self, limit: int) -> Instances:
        """The ``limit`` largest objects, as Detectron2's Instances.

        Returns:
            ``gt_masks`` BitMasks, ``gt_classes`` int64 [N], ``gt_boxes`` tight XYXY in absolute pixels.
        """
        height, width = self.masks.shape[1:]
        instances = Instances((height, width))
        instances.gt_masks = BitMasks(torch.from_numpy(self.masks[:limit].copy()))
        instances.gt_classes = torch.from_numpy(self.classes[:limit].copy())
        # As BitMasks.get_bounding_boxes, which takes longer than all the rest of this function.
        boxes = [(x, y, x + w, y + h) for x, y, w, h in map(cv2.boundingRect, self.masks[:limit].view(np.uint8))]
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        return instances


def build_targets(
    annotations: Sequence[dict],
    size: tuple[int, int],
    transforms: T.Transform,
    new_size: tuple[int, int],
    file_name: str,
) -> InstanceTargets:
    """Decode the annotations of an image and move their masks as the image was moved.

    Args:
        annotations: of a Detectron2 dataset dict.
        size: (H, W).
        transforms: what was applied to the image.
        new_size: (h, w) after them.
        file_name: of the image, for errors.

    Returns:
        Instances sorted by area at network size (stable). One that lies outside the image after ``transforms``, or
        whose mask they emptied because too little is left inside, is left out; one that merely became too small stays,
        with one pixel.

    Raises:
        ValueError: an annotation without valid segmentation or class.
    """
    masks, classes = [], []
    crowd_regions = 0
    for index, annotation in enumerate(annotations):
        where = f"{file_name}: annotation {annotation.get('id', f'number {index}')}"
        if annotation.get("iscrowd", 0):
            crowd_regions += 1
            continue
        mask = transform_mask(annotation_mask(annotation, size, where), transforms)
        if mask.any():
            masks.append(mask)
            classes.append(class_of(annotation, where))
    order = np.argsort([-mask.sum() for mask in masks], kind="stable").astype(int)
    return InstanceTargets(
        masks=np.array([masks[i] for i in order], dtype=bool).reshape(-1, *new_size),
        classes=np.array([classes[i] for i in order], dtype=np.int64),
        crowd_regions=crowd_regions,
    )


def transform_mask(mask: NDArray[np.bool_], transforms: T.Transform) -> NDArray[np.bool_]:
    """Move one mask as its image was moved.

    Args:
        mask: [H, W], not empty.
        transforms: what was applied to the image.

    Returns:
        [h, w]. Where the mask became too small to cover half a pixel anywhere, the pixel nearest to the centre of what
        is left of it inside the image; empty only if that is less than half of it.
    """
    moved = np.ascontiguousarray(transforms.apply_segmentation(mask.astype(np.uint8))).astype(bool)
    if moved.any():
        return moved
    ys, xs = np.nonzero(mask)
    points = np.floor(transforms.apply_coords(np.stack([xs, ys], axis=1) + 0.5)).astype(int)
    inside = points[((points >= 0) & (points < [moved.shape[1], moved.shape[0]])).all(axis=1)]
    # Otherwise it is not its size that emptied the mask.
    if len(inside) >= len(points) / 2:
        x, y = inside[np.square(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
        moved[y, x] = True
    return moved


def class_of(annotation: dict, where: str) -> int:
    """Class number of an annotation, from 0 on; a ValueError that names ``where`` if it has none."""
    category = annotation.get("category_id")
    if not isinstance(category, (int, np.integer)) or category < 0:
        raise ValueError(f"{where} has category_id {category!r}. Give a class number from 0 on.")
    return int(category)
