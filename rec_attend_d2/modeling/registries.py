"""Registries of the parts that the paper names, besides Detectron2's own of meta-architectures."""

from fvcore.common.registry import Registry

PREPROCESSOR_REGISTRY = Registry("PREPROCESSOR")
BOX_PROPOSER_REGISTRY = Registry("BOX_PROPOSER")
SEGMENTATION_HEAD_REGISTRY = Registry("SEGMENTATION_HEAD")
STOP_SCORER_REGISTRY = Registry("STOP_SCORER")
