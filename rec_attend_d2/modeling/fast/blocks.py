"""Conv layers of the fast model. Batch norm is folded into the conv at inference.

Shapes: `B` images or patches, `C` channels, `H, W` input of a block.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.batch_norm import BatchNorm


def widened(cfg: CfgNode, channels: Sequence[int]) -> list[int]:
    """Numbers of channels times MODEL.REC_ATTEND.FAST.WIDTH, in multiples of 4.

    Raises:
        ValueError: a width with which a layer would have no channels.
    """
    width = cfg.MODEL.REC_ATTEND.FAST.WIDTH
    if not width >= 0.125:
        raise ValueError(f"MODEL.REC_ATTEND.FAST.WIDTH is {width}; give at least 0.125.")
    return [max(4, round(number * width / 4) * 4) for number in channels]


class ConvNorm(nn.Module):
    """Conv without bias, and batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3, groups: int = 1):
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        # eps as the original's norm.
        self.norm = BatchNorm(out_channels, eps=1e-3)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]"""
        if self.training:
            return self.norm(self.conv(x))
        norm = self.norm
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        weight, conv = self.conv.weight * scale[:, None, None, None], self.conv
        return F.conv2d(x, weight, shift, conv.stride, conv.padding, groups=conv.groups)


class ConvNormReLU(ConvNorm):
    """Conv without bias, batch norm, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)], >= 0"""
        return F.relu(super().forward(x), inplace=True)


class ResidualBlock(nn.Module):
    """Two 3x3 convs beside a shortcut, which averages over the stride and changes channels by a 1x1 conv."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.first = ConvNormReLU(in_channels, out_channels, stride)
        self.second = ConvNorm(out_channels, out_channels)
        self.stride = stride
        changes = stride > 1 or in_channels != out_channels
        self.shortcut = ConvNorm(in_channels, out_channels, kernel=1) if changes else None
        # It starts as its shortcut.
        nn.init.zeros_(self.second.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)], >= 0"""
        new = self.second(self.first(x))
        if self.shortcut is not None:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
            x = self.shortcut(x)
        return F.relu(x + new, inplace=True)


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """``x`` [B, C, h, w] at the size of ``like`` [B, ., H, W], nearest neighbour."""
    return F.interpolate(x, size=like.shape[2:], mode="nearest")
