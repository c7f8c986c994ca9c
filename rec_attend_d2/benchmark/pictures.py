"""How fast a trained model is on pictures, one by one: how many steps it takes depends on what it finds.

Shapes: `H, W` network input.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from ..prediction.predictor import Predictor, find_weights
from .measuring import count_flops, seconds_of, timing
from .models import inference_mapper


@torch.no_grad()
def picture_row(
    cfg: CfgNode, config_file: str, paths: Sequence[str], repeats: int, warmup: int
) -> tuple[dict[str, Any], Predictor]:
    """Row of a report (see :mod:`.speed`) of inference with the weights of MODEL.WEIGHTS.

    Args:
        cfg: with MODEL.WEIGHTS.
        config_file: beside which the weights are looked for too.
        paths: image files, at least one; each is scaled to INPUT.IMAGE_SIZE.
        repeats: runs of each picture, of which the fastest counts.
        warmup: runs of the first picture before them.

    Returns:
        The row, whose ``seconds`` are those of the network with all of its steps, and whose quartiles are over
        pictures. It has besides: ``seconds_with_postprocessing``, the same up to masks at the picture's own size;
        ``objects`` and ``steps`` per picture, means.

    Raises:
        OSError, ValueError: a picture can't be read, or there are no weights that fit.
    """
    predictor = Predictor(cfg, find_weights(cfg, config_file))
    model, mapper, device = predictor.model, inference_mapper(predictor.cfg), predictor.cfg.MODEL.DEVICE
    batches = [[mapper.map_image(predictor.read(path))[0]] for path in paths]
    for _ in range(warmup):
        model(batches[0])
    networks, whole, flops, steps, objects = [], [], [], [], []
    for batch in batches:
        networks.append(min(seconds_of(lambda: model.run(batch), device) for _ in range(repeats)))
        whole.append(min(seconds_of(lambda: model(batch), device) for _ in range(repeats)))
        flops.append(count_flops(lambda: steps.append(len(model.run(batch)[0][0]))))
        objects.append(len(model(batch)[0]["instances"]))
    height, width = cfg.INPUT.IMAGE_SIZE
    seconds = timing(networks)
    return {
        "run": f"pictures, {height} x {width}",
        "batch": 1,
        "seconds": seconds,
        "images_per_second": 1 / seconds["median"],
        "flops": round(float(np.mean(flops))),
        "steps": float(np.mean(steps)),
        "objects": float(np.mean(objects)),
        "seconds_with_postprocessing": timing(whole),
    }
