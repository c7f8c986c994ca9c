"""The fast model; see :mod:`.model`."""

from . import image_encoder, lite_encoder, patch_head, place_proposer, scorer  # noqa: F401 (they register parts)
from .model import FastRecAttend

__all__ = ["FastRecAttend"]
