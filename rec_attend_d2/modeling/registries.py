"""Registries of the parts that the paper names, besides Detectron2's own of meta-architectures."""

from typing import Any

from fvcore.common.registry import Registry

from ..registry import look_up

PREPROCESSOR_REGISTRY = Registry("PREPROCESSOR")
BOX_PROPOSER_REGISTRY = Registry("BOX_PROPOSER")
SEGMENTATION_HEAD_REGISTRY = Registry("SEGMENTATION_HEAD")
STOP_SCORER_REGISTRY = Registry("STOP_SCORER")

# Meta-architectures whose parts are no other's; those of stages A and B are parts of the paper's model.
FAST, PAPER = "FastRecAttend", "RecAttend"


def look_up_part(registry: Registry, name: str, key: str, model: str) -> Any:
    """The part called ``name``, the value of the configuration key ``key``.

    Raises:
        ValueError: there is none, or its ``part_of`` says that it is one of the other model's. A user's own has no such
            attribute.
    """
    part = look_up(registry, name, key)
    other = getattr(part, "part_of", model)
    if other != model:
        raise ValueError(
            f"{key} '{name}' is a part of {other}, not of {model}: set MODEL.META_ARCHITECTURE or the part."
        )
    return part
