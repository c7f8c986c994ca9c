"""External memory: which pixels have been claimed so far (paper, section 3.1, the canvas c_t).

Shapes: `B` images, `H, W` network input. No gradient flows through the memory.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..registry import look_up
from .registries import MEMORY_REGISTRY


def build_memory(cfg: CfgNode) -> "MaxMemory":
    """The part named by MODEL.REC_ATTEND.MEMORY.NAME."""
    key = "MODEL.REC_ATTEND.MEMORY.NAME"
    return look_up(MEMORY_REGISTRY, cfg.MODEL.REC_ATTEND.MEMORY.NAME, key)(cfg)


@MEMORY_REGISTRY.register()
class MaxMemory(nn.Module):
    """Memory is the pixel-wise maximum of everything claimed: ``c_t+1 = max(c_t, y_t)``."""

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {}

    def initial(self, images: Tensor) -> Tensor:
        """Empty memory [B, H, W] for ``images`` [B, C, H, W]."""
        return images.new_zeros(images.shape[0], *images.shape[2:])

    def visible(self, mask: Tensor, memory: Tensor) -> Tensor:
        """The part of a new soft mask [B, H, W] that counts; here all of it."""
        return mask

    def update(self, memory: Tensor, claimed: Tensor) -> Tensor:
        """Memory [B, H, W] after ``claimed`` [B, H, W] in [0, 1] was written."""
        return torch.maximum(memory, claimed.detach())


@MEMORY_REGISTRY.register()
class NoOverwriteMemory(MaxMemory):
    """Like :class:`MaxMemory`, but a pixel once claimed cannot be claimed again."""

    def visible(self, mask: Tensor, memory: Tensor) -> Tensor:
        """``mask * (1 - memory)``, [B, H, W]."""
        return mask * (1 - memory)
