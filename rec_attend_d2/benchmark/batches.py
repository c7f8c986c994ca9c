"""Synthetic batches for any config: random images with disks as objects, the same in every run.

Shapes: `N` objects, `H, W` network input.
"""

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import NoOpTransform

from ..data.instances import InstanceTargets
from ..data.map_targets import MapTargetGenerator
from ..data.training import sees_windows, training_size
from ..structures import as_crops
from .disks import grid_of_disks
from .probes import number_of_classes, usual_objects


def synthetic_batch(cfg: CfgNode, images: int) -> list[dict]:
    """Dataset dicts as a data loader gives them: with instances, and with true maps where the config has maps.

    Args:
        cfg: the images have its INPUT.IMAGE_SIZE, also for Detectron2's own models, or of the fast model its
            INPUT.WINDOW_SIZE. Masks are bitmaps, of the fast model a label image.
        images: how many; each has as many objects as is usual for the config.
    """
    generator = np.random.default_rng(0)
    size, node = training_size(cfg), cfg.MODEL.REC_ATTEND.PREPROCESSOR
    objects = usual_objects(cfg)
    masks = grid_of_disks(size, objects)
    make_maps = MapTargetGenerator(node.FOREGROUND_CLASSES, node.ANGLE_BINS)
    batch = []
    for number in range(images):
        classes = generator.integers(0, number_of_classes(cfg), objects)
        targets = InstanceTargets(masks, classes, crowd_regions=0)
        entry = {"file_name": f"synthetic image {number}", "image_id": number, "height": size[0], "width": size[1]}
        entry["image"] = torch.from_numpy(generator.integers(0, 256, (3, *size), dtype=np.uint8))
        if sees_windows(cfg):
            entry["labels"] = torch.from_numpy(as_crops(masks).label_image(np.int32))
            entry["gt_classes"] = torch.from_numpy(classes)
        else:
            entry["instances"] = targets.to_instances(objects)
            entry.update(make_maps({"annotations": []}, targets, size, NoOpTransform()))
        batch.append(entry)
    return batch
