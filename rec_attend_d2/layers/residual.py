"""Residual blocks whose norm knows the time step, for the parts of the fast recipe.

Shapes: `B` images, `C` channels, `H, W` input of a block.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conv_norm import conv_norm
from .conv_stack import NormFactory


class ConvNorm(nn.Module):
    """Conv without bias, and norm."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormFactory, stride: int = 1, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor, step: int) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]"""
        return conv_norm(self.conv, self.norm, x, step)


class ConvNormReLU(ConvNorm):
    """Conv without bias, norm, ReLU."""

    def forward(self, x: Tensor, step: int) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)], >= 0"""
        return F.relu(super().forward(x, step), inplace=True)


class ResidualBlock(nn.Module):
    """Two 3x3 convs beside a shortcut, which averages over the stride and changes channels by a 1x1 conv."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormFactory, stride: int = 1):
        super().__init__()
        self.first = ConvNormReLU(in_channels, out_channels, norm, stride)
        self.second = ConvNorm(out_channels, out_channels, norm)
        self.stride = stride
        changes = stride > 1 or in_channels != out_channels
        self.shortcut = ConvNorm(in_channels, out_channels, norm, kernel=1) if changes else None

    def forward(self, x: Tensor, step: int) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)], >= 0"""
        new = self.second(self.first(x, step), step)
        if self.shortcut is not None:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
            x = self.shortcut(x, step)
        return F.relu(x + new, inplace=True)


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """``x`` [B, C, h, w] at the size of ``like`` [B, ., H, W], nearest neighbour."""
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


def calm_residuals(module: nn.Module) -> None:
    """Start every residual block of ``module`` as its shortcut: the last norm's gain becomes 0 (where it has one)."""
    for block in module.modules():
        weight = getattr(block.second.norm, "weight", None) if isinstance(block, ResidualBlock) else None
        if weight is not None:
            torch.nn.init.zeros_(weight)
