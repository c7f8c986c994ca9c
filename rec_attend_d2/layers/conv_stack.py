"""Stacks of 3x3 conv and transposed conv layers whose norm knows the time step.

Shapes: `B` images, `C` channels, `H, W` input of a stack.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conv_norm import conv_norm, fast_layout

# Makes a norm layer for a number of channels; the layer is called with (x, step).
NormFactory = Callable[[int], nn.Module]


def _max_pool(x: Tensor, size: int) -> Tensor:
    if size != 2 or x.device.type != "cpu" or torch.is_grad_enabled():
        return F.max_pool2d(x, size)
    # A quarter of its time where no gradient asks which one of the pixels was the largest.
    rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


class ConvLayer(nn.Module):
    """3x3 conv, norm, ReLU, max-pool."""

    def __init__(self, in_channels: int, out_channels: int, pool: int, norm: NormFactory):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = norm(out_channels)
        self.pool = pool

    def forward(self, x: Tensor, step: int) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, H / pool, W / pool]"""
        x = conv_norm(self.conv, self.norm, x, step)
        # The ReLU of the largest is the largest ReLU, and the pooled map is smaller.
        return F.relu(_max_pool(x, self.pool) if self.pool > 1 else x, inplace=True)


class ConvStack(nn.Module):
    """A sequence of :class:`ConvLayer`."""

    def __init__(self, in_channels: int, channels: Sequence[int], pools: Sequence[int], norm: NormFactory):
        super().__init__()
        inputs = [in_channels, *channels[:-1]]
        self.layers = nn.ModuleList(ConvLayer(i, o, p, norm) for i, o, p in zip(inputs, channels, pools, strict=True))

    def forward(self, x: Tensor, step: int) -> list[Tensor]:
        """Outputs of all layers, shallowest first, for ``x`` [B, C, H, W]."""
        x = fast_layout(x)
        outputs = []
        for layer in self.layers:
            x = layer(x, step)
            outputs.append(x)
        return outputs


class PlainDeconvLayer(nn.Module):
    """3x3 transposed conv whose output is exactly ``stride`` times the input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        # With stride 2 "SAME" alignment is no padding and a cropped last row and column; with stride 1 it is padding 1.
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=stride, padding=1 if stride == 1 else 0)
        self.stride = stride

    def forward(self, x: Tensor, step: int) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, stride * H, stride * W]; alike at every time step."""
        return self._cropped(self.conv(x), x)

    def _cropped(self, enlarged: Tensor, x: Tensor) -> Tensor:
        return enlarged[:, :, : x.shape[2] * self.stride, : x.shape[3] * self.stride]


class DeconvLayer(PlainDeconvLayer):
    """3x3 transposed conv, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: NormFactory):
        super().__init__(in_channels, out_channels, stride)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor, step: int) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, stride * H, stride * W], >= 0"""
        if self.training:
            # Its statistics are those of the cropped map.
            return F.relu(self.norm(super().forward(x, step), step), inplace=True)
        return F.relu(self._cropped(conv_norm(self.conv, self.norm, x, step), x))


class DeconvStack(nn.Module):
    """Transposed conv layers; layer i >= 1 sees the previous output and the i-th skip, concatenated."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: Sequence[int],
        channels: Sequence[int],
        strides: Sequence[int],
        norm: NormFactory,
    ):
        super().__init__()
        inputs = [in_channels] + [c + s for c, s in zip(channels[:-1], skip_channels, strict=True)]
        self.layers = nn.ModuleList(
            DeconvLayer(i, o, s, norm) for i, o, s in zip(inputs, channels, strides, strict=True)
        )

    def forward(self, x: Tensor, skips: Sequence[Tensor], step: int) -> Tensor:
        """Output of the last layer.

        Args:
            x: [B, C, H, W], input of the first layer.
            skips: one map for every layer but the first, of the size of that layer's input.
            step: time step, counted from 0.
        """
        x = self.layers[0](x, step)
        for layer, skip in zip(self.layers[1:], skips, strict=True):
            x = layer(torch.cat([x, skip], dim=1), step)
        return x
