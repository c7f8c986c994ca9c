"""External memory: which pixels have been claimed so far (paper, section 3.1, the canvas c_t).

Shapes: `B` images, `H, W` network input. No gradient flows through the memory.
A memory of one channel is [B, H, W]; one of M channels is [B, M, H, W], and its first channel is what was claimed.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from ..registry import look_up
from .registries import MEMORY_REGISTRY


def build_memory(cfg: CfgNode) -> "MaxMemory":
    """The part named by MODEL.REC_ATTEND.MEMORY.NAME."""
    key = "MODEL.REC_ATTEND.MEMORY.NAME"
    return look_up(MEMORY_REGISTRY, cfg.MODEL.REC_ATTEND.MEMORY.NAME, key)(cfg)


def memory_channels(cfg: CfgNode) -> int:
    """Channels of the memory that MODEL.REC_ATTEND.MEMORY.NAME names."""
    key = "MODEL.REC_ATTEND.MEMORY.NAME"
    return look_up(MEMORY_REGISTRY, cfg.MODEL.REC_ATTEND.MEMORY.NAME, key).channels


def soft_boundary(mask: Tensor) -> Tensor:
    """Inner boundary of soft masks [B, H, W]: how far the lowest of the 3x3 neighbours is below a pixel, in [0, 1]."""
    padded = F.pad(-mask[:, None], (1, 1, 1, 1), mode="replicate")
    return mask + F.max_pool2d(padded, 3, stride=1)[:, 0]


@MEMORY_REGISTRY.register()
class MaxMemory(nn.Module):
    """Memory is the pixel-wise maximum of everything claimed: ``c_t+1 = max(c_t, y_t)``."""

    channels = 1

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {}

    def initial(self, images: Tensor) -> Tensor:
        """Empty memory [B, H, W] for ``images`` [B, C, H, W]."""
        return images.new_zeros(images.shape[0], *images.shape[2:])

    def claimed(self, memory: Tensor) -> Tensor:
        """What was claimed so far, [B, H, W] in [0, 1]."""
        return memory

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


@MEMORY_REGISTRY.register()
class BoundaryMemory(MaxMemory):
    """Remembers the boundary of everything claimed in a second channel, so that touching objects stay apart."""

    channels = 2

    def initial(self, images: Tensor) -> Tensor:
        """Empty memory [B, 2, H, W] for ``images`` [B, C, H, W]."""
        return images.new_zeros(images.shape[0], 2, *images.shape[2:])

    def claimed(self, memory: Tensor) -> Tensor:
        """The first channel of ``memory`` [B, 2, H, W]."""
        return memory[:, 0]

    def update(self, memory: Tensor, claimed: Tensor) -> Tensor:
        """Memory [B, 2, H, W] after ``claimed`` [B, H, W] in [0, 1] and its boundary were written."""
        written = claimed.detach()
        return torch.maximum(memory, torch.stack([written, soft_boundary(written)], dim=1))
