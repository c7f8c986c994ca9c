"""Any Detectron2 backbone with a semantic head as preprocessor.

Shapes: `B` images, `K` foreground channels, `A` angle bins, `H, W` network input.
"""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import Backbone, build_backbone, build_sem_seg_head
from torch import Tensor, nn
from torch.nn import functional as F

from ..registries import PREPROCESSOR_REGISTRY
from .learned_maps import LearnedMaps


@PREPROCESSOR_REGISTRY.register()
class BackboneFCN(LearnedMaps):
    """MODEL.BACKBONE and MODEL.SEM_SEG_HEAD (a head with ``layers``, as SemSegFPNHead) with ``K + A`` channels."""

    @configurable
    def __init__(self, *, backbone: Backbone, head: nn.Module, **maps_arguments: Any):
        """
        Args:
            backbone: gives named maps of images [B, 3, H, W].
            head: its ``layers`` turn them into ``K + A`` channels at a fraction of the image's size.
            maps_arguments: of :class:`.learned_maps.LearnedMaps`.
        """
        super().__init__(**maps_arguments)
        self.backbone = backbone
        self.head = head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        arguments = cls.maps_arguments(cfg)
        backbone = build_backbone(cfg)
        divisor = backbone.size_divisibility
        if divisor > 0 and any(side % divisor for side in cfg.INPUT.IMAGE_SIZE):
            raise ValueError(
                f"INPUT.IMAGE_SIZE is {list(cfg.INPUT.IMAGE_SIZE)}; MODEL.BACKBONE.NAME '{cfg.MODEL.BACKBONE.NAME}' "
                f"needs multiples of {divisor}."
            )
        with_channels = cfg.clone()
        with_channels.defrost()
        with_channels.MODEL.SEM_SEG_HEAD.NUM_CLASSES = arguments["foreground_classes"] + arguments["angle_bins"]
        head = build_sem_seg_head(with_channels, backbone.output_shape())
        if not hasattr(head, "layers"):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NAME '{cfg.MODEL.SEM_SEG_HEAD.NAME}' has no 'layers', of which BackboneFCN makes "
                "its maps. Choose 'SemSegFPNHead' or a head like it."
            )
        return {**arguments, "backbone": backbone, "head": head}

    def logits(self, images: Tensor) -> Tensor:
        """[B, K + A, H, W] of ``images`` [B, 3, H, W]."""
        coarse = self.head.layers(self.backbone(images))  # type: ignore[operator]
        return F.interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=False)
