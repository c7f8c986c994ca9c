"""Batch norm with the statistics of its input, exact in the layout with channels last too.

PyTorch's kernel for channels last on the CPU adds up a channel's values one after another: at 224 x 224 its variance is
off by 6e-5, a thousand times more than float32 needs. Summing rows first costs nothing.

Shapes: `B` images, `C` channels, `H, W` any.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .recomputation import is_recomputing


def _channel_means(*maps: Tensor) -> list[Tensor]:
    """Means [C], double, of maps [B, C, H, W] that have channels last."""
    rows = [x.permute(0, 2, 3, 1).flatten(0, 1) for x in maps]
    return [x.sum(1).double().sum(0) / (x.shape[0] * x.shape[1]) for x in rows]


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance [C] each of ``x`` [B, C, H, W], which has channels last."""
    mean, square = _channel_means(x, x.square())
    return mean.to(x.dtype), (square - mean.square()).clamp(min=0).to(x.dtype)


class _ChannelsLastBatchNorm(torch.autograd.Function):
    """Batch norm, its gradient being ``weight / std * (grad - mean(grad) - z * mean(grad * z))`` with the output z."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        mean, var = channel_statistics(x)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps))
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        x, weight, mean, inverse_std = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        mean_grad, mean_product = _channel_means(grad, grad * x)
        # Mean of grad times the normalised x.
        aligned = (mean_product - mean_grad * mean) * inverse_std
        slope = -weight * inverse_std.square() * aligned
        offset = -weight * inverse_std * mean_grad - slope * mean
        per_channel = [v.to(x.dtype)[:, None, None] for v in (offset, weight * inverse_std, slope)]
        x_grad = torch.addcmul(per_channel[0], grad, per_channel[1]).addcmul_(x, per_channel[2])
        count = x.numel() // x.shape[1]
        return x_grad, (aligned * count).to(x.dtype), (mean_grad * count).to(x.dtype), None


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise a batch with its own statistics.

    Args:
        x: [B, C, H, W].
        weight, bias: [C] each.
        eps: added to the variance.

    Returns:
        [B, C, H, W], and the batch's mean and biased variance [C] each, without gradient.
    """
    if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
        return _ChannelsLastBatchNorm.apply(x, weight, bias, eps)
    # functional.batch_norm would refuse a 1 x 1 map of a single image and store the unbiased variance.
    out, mean, inverse_std = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
    return out, mean.detach(), (inverse_std.detach().pow(-2) - eps).clamp(min=0)


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's, except that it also takes a single value per channel (which becomes the bias), keeps the biased
    variance, and leaves the running statistics alone where a part runs for the second time (TRAINING.RECOMPUTE).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` [B, C, H, W]."""
        if not self.training:
            return super().forward(x)
        out, mean, var = batch_norm(x, self.weight, self.bias, self.eps)
        if not is_recomputing():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var, self.momentum)
        return out
