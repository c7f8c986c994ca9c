"""Loading weights into a model, with a report and an error where they belong to another configuration."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pickle import UnpicklingError

import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from .image_encoder import is_of_image_encoder, load_image_encoder
from .integrity import find_damage

logger = logging.getLogger(__name__)

# Entry of a training's checkpoints that holds the state of torch.optim.swa_utils.AveragedModel, and what that class
# puts before the names of the weights.
AVERAGE_KEY = "ema"
AVERAGE_PREFIX = "module."


# The fast model's buffer that keeps INPUT.OBJECT_SIZE.
OBJECT_SIZE = "object_size"


@dataclass
class LoadReport:
    """What happened to every tensor.

    Attributes:
        loaded: names that were set.
        fresh_parts: parts of the model (first component of the names) of which the file holds nothing; they keep
            their initial weights.
        unused: names in the file that the model does not have.
        averaged: whether these are the averaged weights of a training with SOLVER.EMA_DECAY.
    """

    loaded: list[str] = field(default_factory=list)
    fresh_parts: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    averaged: bool = False


def _part(name: str) -> str:
    return name.split(".")[0]


def read_checkpoint(path: str, key: str = "") -> tuple[dict[str, Tensor], bool]:
    """The weights of a checkpoint that are for use: the averaged ones where a training with SOLVER.EMA_DECAY wrote it.

    Args:
        path: a checkpoint file (.pth), at any place Detectron2's PathManager reads.
        key: the configuration key that names the file, for errors.

    Returns:
        Weights on the CPU by name, and whether they are averaged.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, or a damaged one, or holds an image encoder alone.
    """
    if is_of_image_encoder(path):
        raise ValueError(
            f"MODEL.WEIGHTS '{path}' holds an image encoder alone, from which a training starts. Name the weights that "
            "a training wrote: MODEL.WEIGHTS path/to/model_final.pth."
        )
    named = f"{key} names '{path}', which" if key else f"'{path}'"
    local_path = PathManager.get_local_path(path)
    if not PathManager.isfile(local_path):
        raise FileNotFoundError(f"{named} does not exist.")
    damage = find_damage(local_path)
    if damage:
        raise ValueError(
            f"{named} is damaged: {damage}. Copy or download it anew, or take another checkpoint of its training."
        )
    try:
        content = torch.load(local_path, map_location="cpu", weights_only=True)
        average = content.get(AVERAGE_KEY)
        averaged = isinstance(average, Mapping)
        if averaged:
            weights = {
                name.removeprefix(AVERAGE_PREFIX): tensor
                for name, tensor in average.items()
                if name.startswith(AVERAGE_PREFIX)
            }
        else:
            weights = content.get("model", content)
        return {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}, averaged
    except (AttributeError, EOFError, RuntimeError, UnpicklingError, ValueError) as error:
        raise ValueError(f"{named} is no checkpoint of PyTorch tensors: {error}") from error


def read_object_size(path: str) -> float:
    """INPUT.OBJECT_SIZE that the weights in a checkpoint file were trained with; 0 where they do not say.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_checkpoint`.
    """
    weights, _ = read_checkpoint(path, "MODEL.WEIGHTS")
    return round(float(weights[OBJECT_SIZE]), 3) if OBJECT_SIZE in weights else 0.0


def check_fit(weights: Mapping[str, Tensor], state: Mapping[str, Tensor], named: str, complete: bool) -> None:
    """Raise a ValueError unless weights are those of a model, or of whole parts of it.

    Args:
        weights: of a file, by name.
        state: of the model, by name.
        named: what the file is called in the error.
        complete: whether all parts have to be there.
    """
    wrong_shapes = [
        f"{name}: {tuple(weights[name].shape)} in the file, {tuple(state[name].shape)} in the model"
        for name in state
        if name in weights and tuple(weights[name].shape) != tuple(state[name].shape)
    ]
    given_parts = {_part(name) for name in weights}
    incomplete = [name for name in state if name not in weights and (complete or _part(name) in given_parts)]
    if wrong_shapes or incomplete:
        lines = wrong_shapes + [f"{name}: not in the file" for name in incomplete]
        shown = "\n  ".join(lines[:10]) + (f"\n  ... and {len(lines) - 10} more" if len(lines) > 10 else "")
        raise ValueError(
            f"{named} holds weights of another configuration:\n  {shown}\n"
            "Use the config file the weights were trained with (config.yaml beside them). First axis of norm weights: "
            "MODEL.REC_ATTEND.TIME_STEPS (NORM per_step)."
        )


def load_weights(model: nn.Module, path: str, complete: bool) -> LoadReport:
    """Load the weights of a file into a model; nothing else (no optimizer, no iteration).

    Of a file that a training with SOLVER.EMA_DECAY wrote these are the averaged weights.

    Args:
        model: the model, not wrapped for distributed training.
        path: a checkpoint file (.pth) that Detectron2 wrote, at any place its PathManager reads; or, unless
            ``complete``, weights of the image encoder (see :mod:`.image_encoder`).
        complete: whether the file has to hold all parts of the model, as for evaluation; else whole parts may be
            missing, as when stage C starts from stage B, which has no segmentation head.

    Raises:
        ValueError: the weights are of another configuration: shapes differ, a part is there but not complete, or
            (``complete``) a part is missing; or the file is no checkpoint.
        FileNotFoundError: there is no such file.
    """
    if is_of_image_encoder(path) and not complete:
        loaded = load_image_encoder(model, path)
        fresh = {_part(name) for name in model.state_dict()} - {_part(name) for name in loaded}
        return LoadReport(loaded=loaded, fresh_parts=sorted(fresh))
    weights, averaged = read_checkpoint(path, "MODEL.WEIGHTS")
    state = model.state_dict()
    # It says what the config at hand says, not what that of another training did.
    for names in (weights, state):
        names.pop(OBJECT_SIZE, None)

    check_fit(weights, state, f"'{path}' (MODEL.WEIGHTS)", complete)
    missing = [name for name in state if name not in weights]
    report = LoadReport(
        loaded=[name for name in state if name in weights],
        fresh_parts=sorted({_part(name) for name in missing}),
        unused=sorted(set(weights) - set(state)),
        averaged=averaged,
    )
    model.load_state_dict({name: weights[name] for name in report.loaded}, strict=False)
    kind = "averaged weights" if averaged else "weights as trained, since the file has no average"
    counts = ", ".join(f"{part} {count}" for part, count in Counter(map(_part, report.loaded)).items()) or "none"
    logger.info("Loaded into %s from %s (%s), tensors by part: %s.", type(model).__name__, path, kind, counts)
    if report.fresh_parts:
        logger.info("Parts that start from initial weights, since the file has none: %s", ", ".join(report.fresh_parts))
    if report.unused:
        logger.info("Not used, since the model has nothing of that name: %s", ", ".join(report.unused))
    return report
