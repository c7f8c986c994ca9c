"""Synthetic batches for any config: random images with disks as objects, the same in every run.

Shapes: `N` objects, `H, W` network input.
"""

import math

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import NoOpTransform
from numpy.typing import NDArray

from ..data.instances import InstanceTargets
from ..data.map_targets import MapTargetGenerator
from .probes import number_of_classes, usual_objects

# Of an object, relative to the cell of the grid on which objects are placed.
RADIUS = 0.4


def grid_of_disks(size: tuple[int, int], objects: int) -> NDArray[np.bool_]:
    """Masks bool [N, H, W] of disks side by side; their size falls as their number grows, as that of leaves does.

    Raises:
        ValueError: the image is too small for so many objects.
    """
    columns = math.ceil(math.sqrt(objects * size[1] / size[0]))
    rows = math.ceil(objects / columns)
    if min(size[0] // rows, size[1] // columns) < 3:
        raise ValueError(f"An image of {size[0]} x {size[1]} pixels is too small for {objects} objects; ask for fewer.")
    # Position in units of cells, of which each object has one.
    y = (np.arange(size[0]) + 0.5)[:, None] * rows / size[0]
    x = (np.arange(size[1]) + 0.5)[None, :] * columns / size[1]
    inside = (y % 1 - 0.5) ** 2 + (x % 1 - 0.5) ** 2 < RADIUS**2
    number = y.astype(int) * columns + x.astype(int)
    return inside & (number == np.arange(objects)[:, None, None])


def synthetic_batch(cfg: CfgNode, images: int) -> list[dict]:
    """Dataset dicts as a data loader gives them: with instances, and with true maps where the config has maps.

    Args:
        cfg: its INPUT.IMAGE_SIZE is the size of the images, also for Detectron2's own models. Masks are bitmaps.
        images: how many; each has as many objects as is usual for the config.
    """
    generator = np.random.default_rng(0)
    size, node = tuple(cfg.INPUT.IMAGE_SIZE), cfg.MODEL.REC_ATTEND.PREPROCESSOR
    objects = usual_objects(cfg)
    masks = grid_of_disks(size, objects)
    make_maps = MapTargetGenerator(node.FOREGROUND_CLASSES, node.ANGLE_BINS)
    batch = []
    for number in range(images):
        classes = generator.integers(0, number_of_classes(cfg), objects)
        targets = InstanceTargets(masks, classes, crowd_regions=0)
        entry = {"file_name": f"synthetic image {number}", "image_id": number, "height": size[0], "width": size[1]}
        entry["image"] = torch.from_numpy(generator.integers(0, 256, (3, *size), dtype=np.uint8))
        entry["instances"] = targets.to_instances(objects)
        entry.update(make_maps({"annotations": []}, targets, size, NoOpTransform()))
        batch.append(entry)
    return batch
