"""How fast a trained model is on pictures, one by one: how many steps it takes depends on what it finds.

Shapes: `H, W` network input.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from ..prediction.predictor import Predictor, find_weights
from .measuring import count_flops, seconds_of, timing
from .models import inference_mapper
from .speed import Effort


@torch.no_grad()
def picture_row(cfg: CfgNode, config_file: str, paths: Sequence[str], effort: Effort) -> dict[str, Any]:
    """Row of a report (see :mod:`.speed`) of inference with the weights of MODEL.WEIGHTS.

    Args:
        cfg: with MODEL.WEIGHTS.
        config_file: beside which the weights are looked for too.
        paths: image files, at least one; each is scaled to INPUT.IMAGE_SIZE.
        effort: of the repeated runs of a picture the fastest counts; only the first picture is run before them.

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
    for _ in range(effort.warmup):
        model(batches[0])
    networks: list[float] = []
    whole: list[float] = []
    flops: list[int] = []
    steps: list[int] = []
    objects: list[int] = []
    for batch in batches:
        run, forward = partial(model.run, batch), partial(model, batch)
        networks.append(min(seconds_of(run, device) for _ in range(effort.repeats)))
        whole.append(min(seconds_of(forward, device) for _ in range(effort.repeats)))
        flops.append(count_flops(run))
        steps.append(len(run()[0][0]))
        objects.append(len(forward()[0]["instances"]))
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
