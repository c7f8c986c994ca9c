"""Time of post-processing alone.

Shapes: `n` instances, `H, W` network input, `K` foreground maps.
"""

import numpy as np
import torch
from detectron2.config import CfgNode
from torch.nn import functional as F

from ..modeling.paper.postprocessing import StrongestInstance
from .batches import random_masks
from .timing import Timing, measure, stopwatch_for

IMAGE_SIZE = (1024, 2048)
INSTANCES = 20
SCORE, INSIDE = 0.9, 0.95


def soft_masks(size: tuple[int, int], objects: int, device: str) -> torch.Tensor:
    """Masks [n, H, W] of random objects with soft edges."""
    masks = torch.from_numpy(random_masks(size, objects, np.random.default_rng(0)))[:, None].float()
    return (INSIDE * F.avg_pool2d(masks, 3, stride=1, padding=1))[:, 0].to(device)


def postprocessing_time(
    cfg: CfgNode,
    repeats: int,
    warmup: int,
    image_size: tuple[int, int] = IMAGE_SIZE,
    objects: int = INSTANCES,
) -> tuple[Timing, int]:
    """Time of the config's postprocessor for one image, and the number of instances it makes.

    Args:
        cfg: the config; the masks have its INPUT.IMAGE_SIZE.
        repeats, warmup: runs that count, and before them.
        image_size: (height, width) of the image, pixels.
        objects: in the image.

    Raises:
        ValueError: models of this kind have no postprocessor.
    """
    if cfg.MODEL.META_ARCHITECTURE != "RecAttend":
        raise ValueError(
            f"MODEL.META_ARCHITECTURE '{cfg.MODEL.META_ARCHITECTURE}' has no post-processing of its own to time: leave "
            "--postprocessing out."
        )
    node, device = cfg.MODEL.REC_ATTEND, cfg.MODEL.DEVICE
    postprocessor = StrongestInstance(cfg)
    size = tuple(cfg.INPUT.IMAGE_SIZE)
    masks = soft_masks(size, objects, device)
    scores = torch.full((objects,), SCORE, device=device)
    torch.manual_seed(0)
    foreground = None
    if node.PREPROCESSOR.FOREGROUND_CLASSES == 1:
        foreground = torch.full((1, *size), SCORE, device=device)
    elif node.PREPROCESSOR.FOREGROUND_CLASSES > 1:
        # The background is unlikely everywhere, so that no instance is removed.
        foreground = torch.rand(node.PREPROCESSOR.FOREGROUND_CLASSES, *size, device=device)
        foreground[0] = 0
    found = [0]

    def run() -> None:
        found[0] = len(postprocessor(masks, scores, foreground, image_size))

    return measure(run, stopwatch_for(device), repeats, warmup), found[0]
