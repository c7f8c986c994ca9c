"""The map on which the fast model decides where to look: the memory beside the image encoder's features.

Shapes: `B` images, `D` channels of the map, `h, w` its size, `H, W` network input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.conv_norm import concatenate_fast
from ..steps import StepInputs
from .blocks import ConvNormReLU, ResidualBlock, enlarge
from .image_encoder import FEATURE_STRIDES

# Image pixels per place.
PLACE_STRIDE = FEATURE_STRIDES[0]


class ControlCNN(nn.Module):
    """What is left to do per glance is small, since the features are computed once per image.

    The memory meets the features at 1/4 of the image's size; at 1/8 a way down to 1/32 and up again lets every place
    know about its surroundings. Places have 4 pixels: of small objects several would share one of 8.
    """

    def __init__(self, *, feature_channels: Sequence[int], channels: int):
        """
        Args:
            feature_channels: channels of the two feature maps, at 1/4 and 1/8.
            channels: of its maps at 1/8 and coarser; the map at 1/4 has half as many.
        """
        super().__init__()
        fine, coarse = feature_channels
        # The memory enters as mean and as maximum of each cell: a small object shows in the maximum.
        self.meet = ConvNormReLU(fine + 2, channels, stride=2)
        self.join = ResidualBlock(channels + coarse, channels)
        self.down = nn.ModuleList(ResidualBlock(channels, channels, stride=2) for _ in range(2))
        self.up = nn.ModuleList(ConvNormReLU(channels, channels) for _ in range(2))
        self.out_channels = channels // 2
        self.meet_fine = ConvNormReLU(fine + 2, self.out_channels)
        self.to_fine = nn.Conv2d(channels, self.out_channels, 1)
        self.finest = ConvNormReLU(self.out_channels, self.out_channels)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Map [B, D, H / 4, W / 4]."""
        memory = inputs.memory[:, None]
        cell = FEATURE_STRIDES[0]
        pooled = [F.avg_pool2d(memory, cell), F.max_pool2d(memory, cell)]
        seen = concatenate_fast([inputs.extra.features[0], *pooled])
        x = self.join(torch.cat([self.meet(seen), inputs.extra.features[1]], dim=1))
        levels = [x]
        for block in self.down:
            levels.append(block(levels[-1]))
        x = levels.pop()
        for conv in self.up:
            level = levels.pop()
            x = conv(level + enlarge(x, level))
        fine = self.meet_fine(seen)
        return self.finest(fine + enlarge(self.to_fine(x), fine))
