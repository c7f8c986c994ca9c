"""A conv and its norm in one go, and the memory layout in which convs are fastest.

Shapes: `B` images, `C` channels, `H, W` any.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .step_norm import PerStepBatchNorm


def fast_layout(x: Tensor) -> Tensor:
    """``x`` [B, C, H, W] laid out with channels last on the CPU, where convs of few channels take half the time so."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def conv_norm(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module, x: Tensor, step: int) -> Tensor:
    """``norm(conv(x), step)``; batch norm in evaluation is folded into the conv's weights.

    Args:
        conv: any; its output padding is 0.
        norm: of STEP_NORM_REGISTRY.
        x: [B, C, H, W].
        step: time step, counted from 0.
    """
    if not isinstance(norm, PerStepBatchNorm) or norm.training:
        return norm(conv(x), step)
    scale, shift = norm.scale_and_shift(step)
    bias = shift if conv.bias is None else torch.addcmul(shift, conv.bias, scale)
    if isinstance(conv, nn.ConvTranspose2d):
        assert not isinstance(conv.padding, str)  # which only nn.Conv2d takes
        return F.conv_transpose2d(
            x, conv.weight * scale[:, None, None], bias, conv.stride, conv.padding, dilation=conv.dilation
        )
    return F.conv2d(x, conv.weight * scale[:, None, None, None], bias, conv.stride, conv.padding, conv.dilation)
