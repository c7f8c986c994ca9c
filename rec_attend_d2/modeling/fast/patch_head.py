"""The fast model's segmentation head: a small residual U-Net on the patch that gives out logits.

Shapes: `n` patches, `C` input channels, `F` side of a patch, `V` channels of the deepest features of size `f, f`.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...layers.conv_norm import fast_layout
from ..registries import FAST, SEGMENTATION_HEAD_REGISTRY
from .blocks import ConvNormReLU, ResidualBlock, enlarge, widened

# Of the levels, finest first; times FAST.WIDTH.
HEAD_CHANNELS = (24, 48, 64)


@SEGMENTATION_HEAD_REGISTRY.register()
class ResidualPatchHead(nn.Module):
    """Levels of residual blocks down, each half as large, and back up with a skip per level.

    Attributes:
        feature_channels: V.
    """

    part_of = FAST

    @configurable
    def __init__(self, *, in_channels: int, channels: Sequence[int]):
        """
        Args:
            in_channels: C.
            channels: of the levels; the first has the patch's size.
        """
        super().__init__()
        self.feature_channels = channels[-1]
        first = channels[0]
        self.stem = nn.Sequential(ConvNormReLU(in_channels, first), ConvNormReLU(first, first))
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
        self.down = nn.ModuleList(ResidualBlock(here, below, stride=2) for here, below in pairs)
        self.up = nn.ModuleList(ConvNormReLU(below + here, here) for here, below in reversed(pairs))
        self.mask = nn.Conv2d(first, 1, 1)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict:
        return {"in_channels": in_channels, "channels": widened(cfg, HEAD_CHANNELS)}

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Segment the object in the middle of each patch [n, C, F, F].

        Returns:
            Logits [n, F, F] and the deepest features [n, V, f, f].
        """
        levels = [self.stem(fast_layout(patch))]
        for block in self.down:
            levels.append(block(levels[-1]))
        x = deepest = levels.pop()
        for conv in self.up:
            level = levels.pop()
            x = conv(torch.cat([enlarge(x, level), level], dim=1))
        return self.mask(x)[:, 0], deepest
