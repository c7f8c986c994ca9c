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
from .step_types import ExtraMaps


def build_memory(cfg: CfgNode) -> "MaxMemory":
    """The part named by MODEL.REC_ATTEND.MEMORY.NAME."""
    key = "MODEL.REC_ATTEND.MEMORY.NAME"
    return look_up(MEMORY_REGISTRY, cfg.MODEL.REC_ATTEND.MEMORY.NAME, key)(cfg)


def memory_channels(cfg: CfgNode) -> int:
    """Channels of the memory that MODEL.REC_ATTEND.MEMORY.NAME names."""
    key = "MODEL.REC_ATTEND.MEMORY.NAME"
    return look_up(MEMORY_REGISTRY, cfg.MODEL.REC_ATTEND.MEMORY.NAME, key).channels(cfg)


def soft_boundary(mask: Tensor) -> Tensor:
    """Inner boundary of soft masks [B, H, W]: how far the lowest of the 3x3 neighbours is below a pixel, in [0, 1]."""
    padded = F.pad(-mask[:, None], (1, 1, 1, 1), mode="replicate")
    return mask + F.max_pool2d(padded, 3, stride=1)[:, 0]


@MEMORY_REGISTRY.register()
class MaxMemory(nn.Module):
    """Memory is the pixel-wise maximum of everything claimed: ``c_t+1 = max(c_t, y_t)``."""

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {}

    @classmethod
    def channels(cls, cfg: CfgNode) -> int:
        """M of the memory that ``cfg`` asks for."""
        return 1

    def initial(self, images: Tensor) -> Tensor:
        """Empty memory [B, H, W] for ``images`` [B, C, H, W]."""
        return images.new_zeros(images.shape[0], *images.shape[2:])

    def claimed(self, memory: Tensor) -> Tensor:
        """What was claimed so far, [B, H, W] in [0, 1]."""
        return memory

    def visible(self, mask: Tensor, memory: Tensor) -> Tensor:
        """The part of a new soft mask [B, H, W] that counts; here all of it."""
        return mask

    def update(self, memory: Tensor, claimed: Tensor, extra: ExtraMaps | None = None) -> Tensor:
        """Memory [B, H, W] after ``claimed`` [B, H, W] in [0, 1] was written.

        Args:
            memory: before the step.
            claimed: the step's mask.
            extra: maps of the preprocessor, from which a memory may keep something.
        """
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

    @classmethod
    def channels(cls, cfg: CfgNode) -> int:
        """2"""
        return 2

    def initial(self, images: Tensor) -> Tensor:
        """Empty memory [B, 2, H, W] for ``images`` [B, C, H, W]."""
        return images.new_zeros(images.shape[0], 2, *images.shape[2:])

    def claimed(self, memory: Tensor) -> Tensor:
        """The first channel of ``memory`` [B, 2, H, W]."""
        return memory[:, 0]

    def update(self, memory: Tensor, claimed: Tensor, extra: ExtraMaps | None = None) -> Tensor:
        """Memory [B, 2, H, W] after ``claimed`` [B, H, W] in [0, 1] and its boundary were written."""
        written = claimed.detach()
        return torch.maximum(memory, torch.stack([written, soft_boundary(written)], dim=1))


@MEMORY_REGISTRY.register()
class FeatureMemory(MaxMemory):
    """Remembers beside what was claimed how it looked: every pixel holds the mean features of the object it is in."""

    @configurable
    def __init__(self, *, features: int):
        """
        Args:
            features: how many channels of the preprocessor's finest features it keeps.
        """
        super().__init__()
        self.features = features

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND
        most = (node.PREPROCESSOR.FEATURE_CHANNELS or [0])[0]
        if not 1 <= node.MEMORY.FEATURES <= most:
            raise ValueError(
                f"MODEL.REC_ATTEND.MEMORY.FEATURES is {node.MEMORY.FEATURES}, but FeatureMemory keeps 1 to {most} "
                "channels, of which MODEL.REC_ATTEND.PREPROCESSOR.FEATURE_CHANNELS[0] is the number: give such a "
                "number, and a PREPROCESSOR that makes features (ImageEncoder)."
            )
        return {"features": node.MEMORY.FEATURES}

    @classmethod
    def channels(cls, cfg: CfgNode) -> int:
        """1 + MEMORY.FEATURES"""
        return 1 + cfg.MODEL.REC_ATTEND.MEMORY.FEATURES

    def initial(self, images: Tensor) -> Tensor:
        """Empty memory [B, 1 + F, H, W] for ``images`` [B, C, H, W]."""
        return images.new_zeros(images.shape[0], 1 + self.features, *images.shape[2:])

    def claimed(self, memory: Tensor) -> Tensor:
        """The first channel of ``memory`` [B, 1 + F, H, W]."""
        return memory[:, 0]

    def update(self, memory: Tensor, claimed: Tensor, extra: ExtraMaps | None = None) -> Tensor:
        """Memory [B, 1 + F, H, W] after ``claimed`` [B, H, W] in [0, 1] and the mean features below it were written."""
        if extra is None or not extra.features:
            raise ValueError("FeatureMemory keeps features, but the preprocessor made none.")
        fine = extra.features[0].detach()[:, : self.features]
        written = claimed.detach()[:, None]
        share = F.adaptive_avg_pool2d(written, (fine.shape[2], fine.shape[3]))
        mean = (share * fine).sum((2, 3)) / share.sum((2, 3)).clamp(min=1e-6)
        features = torch.lerp(memory[:, 1:], mean[..., None, None], written)
        return torch.cat([torch.maximum(memory[:, :1], written), features], dim=1)
