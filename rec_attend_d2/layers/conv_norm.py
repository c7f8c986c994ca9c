"""A conv and its norm in one go, and the memory layout in which convs are fastest.

Shapes: `B` images, `C` channels, `H, W` any.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .step_norm import PerStepBatchNorm


def fast_layout(x: Tensor) -> Tensor:
    """``x`` [B, C, H, W] laid out with channels last on the CPU, where convs of few channels take half the time so."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def concatenate_fast(maps: Sequence[Tensor]) -> Tensor:
    """``maps`` [B, C_i, H, W] as one [B, C, H, W] in the layout of :func:`fast_layout`, without another copy."""
    if maps[0].device.type != "cpu":
        return torch.cat(list(maps), dim=1)
    return torch.cat([x.permute(0, 2, 3, 1) for x in maps], dim=3).permute(0, 3, 1, 2)


# Folded weights and biases by conv, while somebody holds remembered_folds.
_folds: ContextVar[dict[nn.Module, tuple[Tensor, Tensor]] | None] = ContextVar("folds", default=None)


@contextmanager
def remembered_folds() -> Iterator[None]:
    """Within it every batch norm is folded once, for all time steps, however often :func:`conv_norm` runs.

    Nobody may change parameters or statistics meanwhile.
    """
    token = _folds.set({})
    try:
        yield
    finally:
        _folds.reset(token)


def _fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: PerStepBatchNorm, rows: int | slice) -> tuple[Tensor, Tensor]:
    """The conv's weight [..., *weight.shape] and bias [..., C] with the norm of one row or of several in them."""
    scale, shift = norm.scale_and_shift(rows)
    bias = shift if conv.bias is None else torch.addcmul(shift, conv.bias, scale)
    transposed = isinstance(conv, nn.ConvTranspose2d)
    return conv.weight * (scale[..., None, :, None, None] if transposed else scale[..., None, None, None]), bias


def _folded(conv: nn.Conv2d | nn.ConvTranspose2d, norm: PerStepBatchNorm, step: int) -> tuple[Tensor, Tensor]:
    folds = _folds.get()
    if folds is None:
        return _fold(conv, norm, norm.slot(step))
    if conv not in folds:
        folds[conv] = _fold(conv, norm, slice(None))
    weight, bias = folds[conv]
    return weight[norm.slot(step)], bias[norm.slot(step)]


def conv_norm(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module, x: Tensor, step: int) -> Tensor:
    """``norm(conv(x), step)``; batch norm in evaluation is folded into the conv's weights.

    Args:
        conv: any; its output padding is 0.
        norm: of STEP_NORMS.
        x: [B, C, H, W].
        step: time step, counted from 0.
    """
    if not isinstance(norm, PerStepBatchNorm) or norm.training:
        return norm(conv(x), step)
    weight, bias = _folded(conv, norm, step)
    if isinstance(conv, nn.ConvTranspose2d):
        assert not isinstance(conv.padding, str)  # which only nn.Conv2d takes
        return F.conv_transpose2d(x, weight, bias, conv.stride, conv.padding, dilation=conv.dilation)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation)
