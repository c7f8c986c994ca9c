"""Synthetic batches for any config: random images with random objects, the same in every run.

Shapes: `N` objects, `H, W` network input.
"""

import math

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import NoOpTransform
from numpy.typing import NDArray

from ..data.instances import InstanceTargets
from ..data.map_targets import MapTargetGenerator

# COCO's mean number of objects per image, for models that have no time steps.
COCO_OBJECTS = 7
# Share of the time steps that an image of a recurrent model has objects for; CVPPP's plants have 16 leaves, T is 21.
OBJECTS_PER_STEP = 0.75
# An object's axes relative to the cell of the grid on which objects are placed.
RELATIVE_SIZE = (0.5, 1.1)


def is_of_this_project(cfg: CfgNode) -> bool:
    """Whether the config's meta-architecture is one of this project's, rather than Detectron2's own."""
    return cfg.MODEL.META_ARCHITECTURE.startswith("RecAttend")


def usual_objects(cfg: CfgNode) -> int:
    """Number of objects that a synthetic image of this config has."""
    if not is_of_this_project(cfg):
        return COCO_OBJECTS
    return max(1, round(OBJECTS_PER_STEP * cfg.MODEL.REC_ATTEND.TIME_STEPS))


def check_config(cfg: CfgNode) -> None:
    """Raise a ValueError where a config wants files of its images, which synthetic ones do not have."""
    node = cfg.MODEL.REC_ATTEND
    for key, value in (
        ("TEST.SEM_SEG_DIR", node.TEST.SEM_SEG_DIR),
        ("PREPROCESSOR.CACHE_DIR", node.PREPROCESSOR.CACHE_DIR),
    ):
        if value:
            raise ValueError(
                f"MODEL.REC_ATTEND.{key} is '{value}', but synthetic images have no files: add "
                f"MODEL.REC_ATTEND.{key} '' to the command."
            )


def random_masks(size: tuple[int, int], objects: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Masks bool [N, H, W] of random ellipses, largest first; none is empty and no two overlap.

    Args:
        size: (H, W), pixels.
        objects: N; they are spread over a grid, so that their size falls as their number grows, as that of leaves does.
        generator: of random numbers.

    Raises:
        ValueError: the image is too small for so many objects.
    """
    columns = math.ceil(math.sqrt(objects * size[1] / size[0]))
    rows = math.ceil(objects / columns)
    cell = np.array([size[0] / rows, size[1] / columns])
    if cell.min() < 3:
        raise ValueError(f"An image of {size[0]} x {size[1]} pixels is too small for {objects} objects; ask for fewer.")
    labels = np.zeros(size, np.int32)
    for label, place in enumerate(generator.permutation(rows * columns)[:objects], start=1):
        center = (np.array(divmod(place, columns)) + 0.5 + generator.uniform(-0.1, 0.1, 2)) * cell
        axes = np.maximum(generator.uniform(*RELATIVE_SIZE, 2) * cell / 2, 1)
        box = (float(center[1]), float(center[0])), (2 * float(axes[1]), 2 * float(axes[0])), generator.uniform(0, 180)
        cv2.ellipse(labels, box, label, thickness=-1)
    masks = labels[None] == np.arange(1, objects + 1)[:, None, None]
    return masks[np.argsort(-masks.sum((1, 2)), kind="stable")]


def number_of_classes(cfg: CfgNode) -> int:
    """How many classes the objects have."""
    if not is_of_this_project(cfg):
        return cfg.MODEL.ROI_HEADS.NUM_CLASSES
    node = cfg.MODEL.REC_ATTEND
    return max(1, node.NUM_CLASSES, node.PREPROCESSOR.FOREGROUND_CLASSES - 1)


def synthetic_batch(cfg: CfgNode, images: int, objects: int, seed: int = 0) -> list[dict]:
    """Dataset dicts as a data loader gives them: with instances, and with true maps where the config has maps.

    Args:
        cfg: its INPUT.IMAGE_SIZE is the size of the images, also for Detectron2's own models. Masks are bitmaps.
        images: how many.
        objects: per image.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    size, node = tuple(cfg.INPUT.IMAGE_SIZE), cfg.MODEL.REC_ATTEND.PREPROCESSOR
    make_maps = MapTargetGenerator(node.FOREGROUND_CLASSES, node.ANGLE_BINS)
    batch = []
    for number in range(images):
        masks = random_masks(size, objects, generator)
        classes = generator.integers(0, number_of_classes(cfg), objects)
        targets = InstanceTargets(masks, classes, crowd_regions=0)
        entry = {"file_name": f"synthetic image {number}", "image_id": number, "height": size[0], "width": size[1]}
        entry["image"] = torch.from_numpy(generator.integers(0, 256, (3, *size), dtype=np.uint8))
        entry["instances"] = targets.to_instances(objects)
        entry.update(make_maps({"annotations": []}, targets, size, NoOpTransform()))
        batch.append(entry)
    return batch
